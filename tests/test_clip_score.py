"""The CLIP score of a tiny random model, beside the model's own parts put together by hand."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from bootdiff.core.errors import BootdiffError
from bootdiff.metrics.clip_score import ClipScore
from tiny_pipelines import CLIP_SCALE as SCALE
from tiny_pipelines import CLIP_SIDE as SIDE
from tiny_pipelines import clip_tokenizer, tiny_clip

TEXTS = ["a red cat", "the blue dog " * 40, "photo of a dog"]


@pytest.fixture
def folder(clip_folder):
    """A CLIPModel as it is published."""
    return clip_folder


def images(count: int, *shape: int) -> torch.Tensor:
    return 2 * torch.rand(count, *shape, generator=torch.Generator().manual_seed(1)) - 1


def test_the_score_is_the_cosine_of_the_embeddings(folder):
    from transformers import CLIPModel

    model, pixels = CLIPModel.from_pretrained(folder).eval(), images(3, 3, SIDE, SIDE)
    mean, std = (torch.tensor(SCALE[name])[:, None, None] for name in SCALE)
    tokens = clip_tokenizer()(TEXTS, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
    with torch.no_grad():
        seen = model.visual_projection(model.vision_model(((pixels + 1) / 2 - mean) / std).pooler_output)
        read = model.text_projection(model.text_model(tokens.input_ids).pooler_output)
    expected = 100 * torch.cosine_similarity(seen, read).clamp(min=0)
    scorer = ClipScore(folder)
    scores = scorer(pixels, TEXTS)
    torch.testing.assert_close(scores, expected.double(), rtol=1e-4, atol=1e-4)
    assert len(set(expected.tolist())) > 1 and float(expected.max()) > 0
    estimate = scorer.estimate(torch.tensor([10.0, 20.0, 60.0]))
    assert (estimate.value, estimate.num) == (30, 3) and "tiny-clip" in estimate.estimator
    assert estimate.high - estimate.value == pytest.approx(1.96 * np.std([10, 20, 60], ddof=1) / np.sqrt(3))


@pytest.mark.parametrize(("height", "width"), [(40, 40), (33, 70), (61, 24), (8, 8), (6, 13)])
def test_images_are_resized_as_pil_does_it(folder, height, width):
    """To the rounding of PIL's 8 bits: the shorter edge to the model's side, then the middle.

    No pixel is near black or white, where PIL cuts off overshoots between its two passes too.
    """
    pixels = (80 + 90 * torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))).byte()
    edge = min(height, width)
    sides = (width * SIDE // edge, height * SIDE // edge)
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize(sides, Image.Resampling.BICUBIC)
    left, top = ((size - SIDE) // 2 for size in sides)
    cut = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[:, top : top + SIDE, left : left + SIDE]
    mean, std = (torch.tensor(SCALE[name])[:, None, None] for name in SCALE)
    prepared = ClipScore(folder).prepare(pixels[None] / 127.5 - 1)[0]
    torch.testing.assert_close(prepared * std + mean, cut / 255, rtol=0, atol=1.01 / 255)


def test_grey_images_count_as_coloured_ones(folder):
    scorer, grey = ClipScore(folder), images(3, 1, 20, 20)
    assert torch.equal(scorer(grey, TEXTS), scorer(grey.repeat(1, 3, 1, 1), TEXTS))


@pytest.mark.parametrize(
    ("pixels", "texts", "words"),
    [
        (torch.zeros(2, 3, 8, 8), ["a"], "got 2 images and 1 texts"),
        (torch.zeros(1, 4, 8, 8), ["a"], r"3 or 1, h, w\), got \(1, 4, 8, 8\)"),
        (torch.full((1, 3, 8, 8), torch.nan), ["a"], "the images of 1 of 1 samples are not finite"),
    ],
)
def test_what_does_not_fit_is_refused(folder, pixels, texts, words):
    with pytest.raises(BootdiffError, match=words):
        ClipScore(folder)(pixels, texts)


def test_a_missing_model_is_one_line(tmp_path):
    with pytest.raises(BootdiffError, match="no folder at") as missing:
        ClipScore(tmp_path / "nothing" / "here")
    with pytest.raises(BootdiffError, match="nobody/nothing is no folder, and the hub gives no CLIPModel") as unknown:
        ClipScore("nobody/nothing")(images(1, 3, 8, 8), ["a"])
    with pytest.raises(BootdiffError, match=r"has no config\.json of a model; expected a CLIPModel") as empty:
        ClipScore(tmp_path)(images(1, 3, 8, 8), ["a"])
    assert not any("\n" in str(caught.value) for caught in (missing, unknown, empty))


def test_another_architecture_is_refused(tmp_path):
    tiny_clip().save_pretrained(tmp_path)
    with pytest.raises(BootdiffError, match="has model_type 'clip_text_model'; expected a CLIPModel"):
        ClipScore(tmp_path)(images(1, 3, 8, 8), ["a"])


def copied(folder, to):
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("visual_projection.weight"), r"lack 1 tensor .* 'visual_projection\.weight'"),
        (lambda w: w.update(more=torch.ones(2)), "does not know, such as 'more'"),
        (
            lambda w: w.update({"visual_projection.weight": torch.ones(3)}),
            r"another shape .* 'visual_projection\.weight'",
        ),
        (
            lambda w: w["text_projection.weight"].view(-1)[:1].fill_(torch.nan),
            r"'text_projection\.weight' .* not finite",
        ),
    ],
    ids=["one missing", "one more", "another shape", "NaN"],
)
def test_weights_are_complete_its_own_and_finite(folder, tmp_path, change, words):
    path = copied(folder, tmp_path) / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(BootdiffError, match=words):
        ClipScore(tmp_path).load()


def test_pickled_weights_are_not_opened(folder, tmp_path):
    weights = load_file(copied(folder, tmp_path) / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(BootdiffError, match=r"expected config\.json, model\.safetensors"):
        ClipScore(tmp_path)(images(1, 3, 8, 8), ["a"])


def test_a_preprocessor_that_is_missing_is_asked_for(folder, tmp_path):
    (copied(folder, tmp_path) / "preprocessor_config.json").unlink()
    with pytest.raises(BootdiffError, match=r"cannot be read as a CLIPModel .* preprocessor_config\.json"):
        ClipScore(tmp_path)(images(1, 3, 8, 8), ["a"])
