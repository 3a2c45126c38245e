"""Teachers made here: labels, captions, label dropout, latents and cascades, and how faithful their samples are."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from bootdiff.builtin import BUILTIN_TEACHERS, builtin_folder
from bootdiff.cli.words import read_pattern
from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.core.randomness import Draw, sample_noise
from bootdiff.data.conditions import Classes
from bootdiff.data.images import load_images
from bootdiff.data.labels import NUMBERS, Captions, digit_captions, load_captions, load_labels
from bootdiff.data.resizing import resized
from bootdiff.data.sources import Images
from bootdiff.evaluation.evaluate import evaluate
from bootdiff.evaluation.measure import Listed
from bootdiff.evaluation.tally import Judges
from bootdiff.metrics.features import load_features
from bootdiff.samplers.students import open_student
from bootdiff.sampling.layouts import interpolated
from bootdiff.students.files import load_student
from bootdiff.teachers import Mixture, load_teacher
from bootdiff.teaching.settings import TeacherSettings
from bootdiff.teaching.teach import train_teacher
from bootdiff.teaching.training_data import load_data
from bootdiff.teaching.untrained.base import Captioned, Labelled
from bootdiff.teaching.untrained.tokenizers import clip_tokenizer, t5_tokenizer
from toys import command

TINY = {
    "steps": 2,
    "batch_size": 8,
    "sample_every": 1,
    "channels": [32, 32],
    "text_width": 32,
    "text_layers": 1,
    "autoencoder_steps": 2,
    "autoencoder_channels": [8, 8],
}
KINDS = {
    "classes": "DDPMPipeline",
    "stable-diffusion": "StableDiffusionPipeline",
    "if": "IFPipeline",
    "if-upscaler": "IFSuperResolutionPipeline",
}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory) -> Path:
    """One barely trained teacher of each kind; tests must not change them."""
    folder = tmp_path_factory.mktemp("teachers")
    for kind in KINDS:
        more = {"resize": 16} if kind == "if-upscaler" else {}
        assert train_teacher("digits", folder / kind, TeacherSettings(kind=kind, **TINY, **more))
    return folder


def idx(kind: int, *dims: int, values: bytes) -> bytes:
    return struct.pack(f">HBB{len(dims)}I", 0, 8, kind, *dims) + values


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_opens_as_its_stock_pipeline_and_is_read_as_a_teacher(teachers, kind):
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(teachers / kind)
    assert type(pipeline).__name__ == KINDS[kind]
    teacher = load_teacher(str(teachers / kind))
    side = 16 if kind == "if-upscaler" else 4 if kind == "stable-diffusion" else 8
    assert teacher.shape[-1] == side
    assert (teachers / kind / "samples" / "step-00000002.png").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_distilled_and_sampled(cli, teachers, tmp_path, kind):
    words = ["--prompts", "digits"] if kind != "classes" else []  # its null class is known
    small = ["--steps", 2, "--batch-size", 4, "--set", "sample_every=0"]
    base = []
    if kind == "if-upscaler":
        assert cli("distill", teachers / "if", "--output", tmp_path / "base", "--prompts", "digits", *small).code == 0
        base = ["--base", tmp_path / "base"]
    run = tmp_path / "run"
    done = cli("distill", teachers / kind, "--output", run, *words, "--guidance-scale", 2, *base, *small)
    assert done.code == 0, done.err
    named = ["--prompt", "a thin seven"] if kind != "classes" else ["--class", "7"]
    made = cli("sample", run, *named, "--num", 2, "--output", tmp_path / "a.png")
    assert made.code == 0, made.err
    assert Image.open(tmp_path / "a.png").size == (98, 48)


@pytest.mark.parametrize(
    ("kind", "stage"),
    [("classes", "teacher"), ("if", "teacher"), ("stable-diffusion", "teacher"), ("stable-diffusion", "autoencoder")],
)
def test_a_teacher_resumes_to_the_same_bits(teachers, tmp_path, kind, stage, monkeypatch):
    from bootdiff.core.errors import Interrupted
    from bootdiff.training.loop import Loop

    stop_if_asked = Loop._stop_if_asked

    def stop_once(loop: Loop) -> None:
        if loop.step == 1 and stage in loop.learners:
            loop.stop_signal = 2
        stop_if_asked(loop)

    settings = TeacherSettings(kind=kind, **TINY)
    monkeypatch.setattr(Loop, "_stop_if_asked", stop_once)
    with pytest.raises(Interrupted):
        train_teacher("digits", tmp_path / "again", settings)
    monkeypatch.undo()
    assert train_teacher("digits", tmp_path / "again", settings)
    assert not train_teacher("digits", tmp_path / "again", settings)
    for file in sorted((teachers / kind).glob("*/*.safetensors")):
        assert file.read_bytes() == (tmp_path / "again" / file.parent.name / file.name).read_bytes()


def test_latents_have_deviation_one_and_the_encoder_learns_with_the_network(teachers):
    from diffusers import StableDiffusionPipeline

    from bootdiff.teaching.autoencoder import latents_of

    pipeline = StableDiffusionPipeline.from_pretrained(teachers / "stable-diffusion")
    assert latents_of(pipeline.vae, load_images("digits")).std().item() == pytest.approx(1, abs=1e-3)
    torch.manual_seed(TeacherSettings().seed)
    first = TeacherSettings(kind="stable-diffusion", **TINY)
    from bootdiff.teaching.untrained import UNTRAINED

    fresh = UNTRAINED["stable-diffusion"](load_data("digits", first), first).pipeline.text_encoder.state_dict()
    moved = {name for name, value in pipeline.text_encoder.state_dict().items() if not torch.equal(value, fresh[name])}
    assert any("token_embedding" in name for name in moved) and any("mlp" in name for name in moved)


def test_conditions_in_training_are_what_the_stock_pipeline_makes_of_the_prompt(teachers):
    """What the network saw of a caption is what it is given for the same prompt later."""
    from diffusers import DiffusionPipeline

    from bootdiff.methods.denoising import TextEncoder

    for kind, masked in (("stable-diffusion", False), ("if", True)):
        pipeline = DiffusionPipeline.from_pretrained(teachers / kind)
        captions = Captions.of([["a thin seven"], ["two"]])
        seen = Captioned.of_data(captions, pipeline.tokenizer, 0.0, 77)
        condition = seen.of(torch.tensor([0, 1]), Draw(0, 0, "teacher", 0, 2, 2))
        ours = TextEncoder(pipeline.text_encoder, masked)(condition)["text"]
        for row, prompt in enumerate(("a thin seven", "two")):
            if masked:
                stock, _ = pipeline.encode_prompt(prompt, False, device="cpu", clean_caption=False)
            else:
                stock, _ = pipeline.encode_prompt(prompt, "cpu", 1, False)
            torch.testing.assert_close(ours[row : row + 1], stock, atol=1e-5, rtol=1e-5)


def test_captions_of_an_if_are_cleaned_as_its_prompts_are(teachers):
    from diffusers import IFPipeline

    from bootdiff.teaching.untrained.deepfloyd import cleaned

    pipeline = IFPipeline.from_pretrained(teachers / "if", safety_checker=None, watermarker=None)
    texts = ("A Red Cat", "  a thin  7 ")
    ours = cleaned(Captions(texts, torch.zeros(1, 1))).texts
    assert list(ours) == pipeline._text_preprocessing(list(texts), clean_caption=True)
    assert ours[0] == "a red cat"


def test_the_null_class_is_written_down_and_left_out(cli, teachers, tmp_path):
    facts = json.loads(cli("inspect", teachers / "classes", "--json").out)
    assert facts["classes"] == 11 and facts["null_class"] == 10
    small = ["--steps", 1, "--batch-size", 2, "--set", "sample_every=0"]
    assert cli("distill", teachers / "classes", "--output", tmp_path / "run", *small).code == 0
    said = json.loads((tmp_path / "run/student-path/bootdiff.json").read_text())["conditions"]
    assert said == {"labels": list(range(10)), "null_class": 10}


@pytest.mark.slow
@pytest.mark.multi
def test_two_processes_train_the_same_teacher(cli, tmp_path):
    words = ["train-teacher", "digits", "--kind", "stable-diffusion", "--steps=2", "--batch-size=8"]
    words += ["--set=text_width=32", "--set=text_layers=1", "--set=autoencoder_steps=2", "--set=channels=[16,16]"]
    words += ["--set=sample_every=0", "--set=autoencoder_channels=[8,8]"]
    one = cli(*words, "--output", tmp_path / "one")
    assert one.code == 0, one.err
    call = command(*words, "--output", tmp_path / "two", processes=2)
    two = subprocess.run(call, capture_output=True, text=True, timeout=300)
    said = [line for line in two.stderr.splitlines() if line.startswith("bootdiff:")]
    assert two.returncode == 0, said or two.stderr[-2000:]
    for out, err in ((one.out, one.err), (two.stdout, two.stderr)):
        assert out.count("teacher:") == 1
        assert err.count("training teacher: 2/2") == 1  # one process speaks, so they know of each other
    for part in ("unet", "vae"):
        name = f"{part}/diffusion_pytorch_model.safetensors"
        one, two = load_file(tmp_path / "one" / name), load_file(tmp_path / "two" / name)
        assert max(float((one[key] - two[key]).abs().max()) for key in one) < 1e-3


def test_labels_and_captions_are_dropped_as_often_as_asked():
    labels, draw = torch.arange(4000) % 4, Draw(3, 0, "teacher", 0, 4000, 4000)
    seen = Labelled(labels, 4, 0.25).of(torch.arange(4000), draw)["classes"]
    kept = seen != 4
    assert (~kept).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(seen[kept], labels[kept])
    tokens = torch.arange(3)[:, None].expand(3, 2)  # two captions and, at last, the empty prompt
    captions = Captions(("a", "b"), torch.zeros(4000, 2, dtype=torch.long).index_fill_(1, torch.tensor([1]), 1))
    words = Captioned(captions, tokens, torch.ones(3, 2), 0.25).of(torch.arange(4000), draw)["tokens"][:, 0]
    shares = [(words == number).float().mean().item() for number in range(3)]
    assert shares == pytest.approx([0.375, 0.375, 0.25], abs=0.03)


def test_a_batch_knows_what_its_images_are():
    pixels = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(10, 1, 2, 2).contiguous()
    source = Images(pixels, Labelled(torch.arange(10), 10, 0.0))
    batch = source.batch(Draw(0, 0, "teacher", 0, 6, 6))
    assert torch.equal(((batch.data[:, 0, 0, 0] + 1) * 127.5).round().long(), batch.condition["classes"])


def test_labels_of_idx_files_folders_and_parquet(tmp_path):
    (tmp_path / "idx").mkdir()
    images = tmp_path / "idx" / "train-images-idx3-ubyte.gz"
    images.write_bytes(gzip.compress(idx(3, 3, 2, 2, values=bytes(12))))
    (tmp_path / "idx" / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(1, 3, values=bytes([4, 0, 9]))))
    assert load_labels(str(tmp_path / "idx")).tolist() == load_labels(str(images)).tolist() == [4, 0, 9]
    for name, value in (("cat", 10), ("cat", 20), ("ant", 30)):
        (tmp_path / "tree" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name / f"{value}.png").write_bytes(png(value))
    pixels, labels = load_images(str(tmp_path / "tree")), load_labels(str(tmp_path / "tree"))
    assert pixels[:, 0, 0, 0].tolist() == [30, 10, 20] and labels.tolist() == [0, 1, 1]
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    table = {"image": [{"bytes": png(5)}, {"bytes": png(6)}], "label": [1, 0], "text": ["five", "six"]}
    parquet.write_table(pyarrow.table(table), tmp_path / "a.parquet")
    assert load_labels(str(tmp_path / "a.parquet")).tolist() == [1, 0]
    assert load_captions(str(tmp_path / "a.parquet")).texts == ("five", "six")


def test_captions_of_a_folder(tmp_path):
    for value in (10, 20):
        (tmp_path / f"{value}.png").write_bytes(png(value))
    lines = [{"file_name": "20.png", "text": "light"}, {"file_name": "10.png", "text": "dark"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    captions = load_captions(str(tmp_path))
    assert [captions.texts[row] for row in captions.rows[:, 0].tolist()] == ["dark", "light"]


def test_captions_of_the_digits_are_the_shipped_prompts():
    captions, labels = load_captions("digits"), load_labels("digits")
    with (builtin_folder("digits") / "prompts.csv").open() as file:
        shipped = {row["prompt"]: int(row["label"]) for row in csv.DictReader(file)}
    assert set(captions.texts) == set(shipped)
    for row, label in zip(captions.rows, labels.tolist(), strict=True):
        assert {shipped[captions.texts[i]] for i in row.tolist()} == {label}
    ink = load_images("digits").float().mean((1, 2, 3))
    means = {}
    for weight in ("bold", "thin"):
        said = [any(f" {weight} " in captions.texts[i] for i in row) for row in captions.rows.tolist()]
        means[weight] = ink[torch.tensor(said)].mean().item()
        assert 0.25 < sum(said) / len(said) < 0.4
    assert means["bold"] > 1.2 * means["thin"]
    assert "a thin handwritten two" in digit_captions(2, "thin") and "a bold 2" not in digit_captions(2, "")


def test_every_word_of_the_captions_is_one_token():
    words = ["handwritten", "seven", "a", "7"]
    clip, t5 = clip_tokenizer(words, 77), t5_tokenizer(words, 77)
    nested = ["an", "hand", "one", "stone", "sandal", "and"]
    assert all(len(clip_tokenizer(nested, 77)(word).input_ids) == 3 for word in nested)
    assert len(clip("a handwritten seven").input_ids) == 5  # and the two ends
    assert len(t5("a handwritten seven").input_ids) == 4  # and the one end
    assert clip.unk_token_id not in clip("something else!").input_ids[1:-1]


def test_resizing_averages_or_interpolates():
    pixels = torch.tensor([[0, 100], [200, 100]], dtype=torch.uint8).view(1, 1, 2, 2)
    assert resized(pixels, 1).item() == 100
    digits = load_images("digits")[:8]
    large = resized(digits, 16)
    assert large.shape == (8, 1, 16, 16)
    assert (resized(large, 8).float() - digits.float()).abs().mean() < 12


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no labels", ["--kind", "classes"]),
        ("no captions", ["--kind", "stable-diffusion"]),
        ("a kind that is none", ["--kind", "dit"]),
        ("a dropout above one", ["--kind", "classes", "--set", "condition_dropout=1.5"]),
        ("an odd width of text", ["--kind", "if", "--set", "text_width=48"]),
        ("small images that are not small", ["--kind", "if-upscaler", "--set", "low_size=8"]),
        ("small images that are no fraction", ["--kind", "if-upscaler", "--set", "low_size=3"]),
        ("too few channels for attention", ["--kind", "if", "--set", "text_width=32"]),
        ("a schedule that the pipeline does not know", ["--kind", "stable-diffusion", "--schedule", "sigmoid"]),
        ("a latent that cannot be halved", ["--kind", "stable-diffusion", "--set", "channels=[8,8,8,8]"]),
    ],
)
def test_bad_input_is_one_line(cli, tmp_path, name, words):
    data = "digits"
    if name.startswith("no "):
        data = tmp_path / "images"
        data.mkdir()
        (data / "a.png").write_bytes(png(1))
    small = ["--set", "channels=[8,8]"] if "channels" not in str(words) else []
    done = cli("train-teacher", data, "--output", tmp_path / "new", *small, *words)
    assert done.code == 2 and done.err.startswith("bootdiff: error: ") and done.err.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_images_of_any_size_are_cut_to_one(cli, tmp_path):
    for name, size in (("a", (9, 6)), ("b", (5, 12))):
        (tmp_path / "tree" / name).mkdir(parents=True)
        Image.new("RGB", size, "red").save(tmp_path / "tree" / name / "x.png")
    with pytest.raises(BootdiffError, match="set resize=SIDE"):
        load_images(str(tmp_path / "tree"))
    assert load_images(str(tmp_path / "tree"), 8).shape == (2, 3, 8, 8)
    settings = TeacherSettings(kind="classes", channels=[8, 8], resize=8)
    assert load_data(str(tmp_path / "tree"), settings).labels.tolist() == [0, 1]
    Image.new("L", (9, 6)).save(tmp_path / "tree/b/y.png")
    with pytest.raises(BootdiffError, match="colours"):
        load_images(str(tmp_path / "tree"), 8)


def test_labels_that_are_missing_or_damaged_are_named(tmp_path):
    images = tmp_path / "train-images-idx3-ubyte"
    images.write_bytes(idx(3, 1, 2, 2, values=bytes(4)))
    with pytest.raises(BootdiffError, match="no labels beside"):
        load_labels(str(images))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(b"nonsense!")
    with pytest.raises(BootdiffError, match="cannot be read as an IDX file"):
        load_labels(str(images))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(images.read_bytes())
    with pytest.raises(BootdiffError, match="no IDX file of labels"):
        load_labels(str(images))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(1, 2, values=bytes(2)))
    with pytest.raises(BootdiffError, match="1 images and 2 labels"):
        load_data(str(images), TeacherSettings(kind="classes", channels=[8, 8]))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.png").write_bytes(png(1))
    (tmp_path / "folder" / "metadata.jsonl").write_text('{"file_name": "b.png", "text": "b"}')
    with pytest.raises(BootdiffError, match=r"describes b\.png, which is not there"):
        load_captions(str(tmp_path / "folder"))
    (tmp_path / "folder" / "metadata.jsonl").write_text("")
    with pytest.raises(BootdiffError, match=r"says nothing of a\.png"):
        load_captions(str(tmp_path / "folder"))
    (tmp_path / "folder" / "metadata.jsonl").write_text('{"file_name": "a.png"}')
    with pytest.raises(BootdiffError, match="line 1"):
        load_captions(str(tmp_path / "folder"))
    (tmp_path / "folder" / "metadata.jsonl").write_text('{"file_name": "a.png", "text": null}')
    with pytest.raises(BootdiffError, match="should be text, got None"):
        load_captions(str(tmp_path / "folder"))
    (tmp_path / "folder" / "metadata.jsonl").write_bytes('{"file_name": "a.png", "text": "schön"}'.encode("latin-1"))
    with pytest.raises(BootdiffError, match="UTF-8"):
        load_captions(str(tmp_path / "folder"))


def test_faithfulness_is_the_share_of_samples_in_the_class_that_was_asked_for():
    digits, labels = load_images("digits"), load_labels("digits")
    images = digits.float() / 127.5 - 1
    shown = torch.cat([images[labels == label][:20] for label in range(10)]).view(10, 20, 1, 8, 8)
    features = load_features("digits", (1, 8, 8))
    teacher = Mixture(torch.zeros(1, 1, 8, 8), 1.0)

    class Copies:
        """Asked for class c it gives a digit c, or, off by ``shift``, another one."""

        adapter, shape = None, (1, 8, 8)

        def __init__(self, shift: int) -> None:
            self.shift = shift

        def __call__(self, eps: torch.Tensor, condition: Condition) -> torch.Tensor:
            return torch.stack([shown[(int(c) + self.shift) % 10, i % 20] for i, c in enumerate(condition["classes"])])

        def told_weight(self, weight: float | None) -> float | None:
            return None

    judges = Judges(features, features_statistics(features, images))
    result = evaluate(
        {"right": Copies(0), "wrong": Copies(1)},
        teacher,
        teacher.t_range,
        judges,
        Listed(Classes(list(range(10)))),
        num=100,
        calls=[],
        heun=False,
    )
    rows = {row["name"]: row["faithfulness"] for row in result["rows"]}
    assert rows["right"] > 0.97 and rows["wrong"] < 0.03
    asked = evaluate(
        {"wrong": Copies(1)},
        teacher,
        teacher.t_range,
        judges,
        Listed(Classes(list(range(10))), labels=[(label + 1) % 10 for label in range(10)]),
        num=100,
        calls=[],
        heun=False,
    )
    assert next(row["faithfulness"] for row in asked["rows"] if row["name"] == "wrong") > 0.97


def features_statistics(features, images):
    from bootdiff.evaluation.references import Reference
    from bootdiff.metrics.frechet import Accumulator

    accumulator = Accumulator()
    accumulator.add(features(images))
    return Reference(accumulator.statistics(), None, "digits", features.name)


def test_digits_of_16_pixels_are_measured_as_digits():
    features = load_features("digits", (1, 16, 16))
    images = resized(load_images("digits")[:200], 16).float() / 127.5 - 1
    hits = features.read(images)[1].argmax(1) == load_labels("digits")[:200]
    assert hits.float().mean() > 0.9 and features.name.endswith("-of-16")


def test_noises_are_interpolated_on_their_sphere_or_on_a_line():
    first, last = sample_noise(0, 0, 1, (3, 16, 16)), sample_noise(1, 0, 1, (3, 16, 16))
    shares = torch.linspace(0, 1, 5).view(-1, 1, 1, 1)
    round_way, line = interpolated(first, last, shares, False), interpolated(first, last, shares, True)
    for way in (round_way, line):
        torch.testing.assert_close(way[:1], first)
        torch.testing.assert_close(way[-1:], last)
    lengths = round_way.flatten(1).norm(dim=1)
    assert (lengths / lengths[0] - 1).abs().max() < 0.05 < 1 - (line.flatten(1).norm(dim=1) / lengths[0]).min()
    assert torch.equal(interpolated(first, first, shares, False), first.expand(5, -1, -1, -1))


def test_a_pattern_of_words_is_every_prompt():
    assert read_pattern("a {bold,thin} {one,two}") == ["a bold one", "a bold two", "a thin one", "a thin two"]
    assert read_pattern("a {,bold} one") == ["a one", "a bold one"]
    with pytest.raises(BootdiffError, match="--swap expects"):
        read_pattern("a bold one")


def test_swapped_words_share_their_noise_and_interpolation_ends_at_its_seeds(cli, teachers, tmp_path):
    run, small = tmp_path / "run", ["--steps", 2, "--batch-size", 4, "--set", "sample_every=0"]
    teacher = teachers / "stable-diffusion"
    assert cli("distill", teacher, "--output", run, "--prompts", "digits", *small).code == 0

    def tiles(name: str, *words: object) -> list[np.ndarray]:
        done = cli("sample", run, *words, "--output", tmp_path / name)
        assert done.code == 0, done.err
        return [np.asarray(Image.open(file)) for file in sorted((tmp_path / name).iterdir())]

    swapped = tiles("swap", "--swap", "a {bold,thin} one", "--num", 2, "--seed", 5)
    for column, word in enumerate(("bold", "thin")):
        alone = tiles(word, "--prompt", f"a {word} one", "--num", 2, "--seed", 5)
        for row in range(2):  # a row a noise
            assert np.abs(swapped[2 * row + column].astype(int) - alone[row]).max() <= 1
    assert np.abs(swapped[0].astype(int) - swapped[2]).max() > 1  # another noise
    way = tiles("way", "--prompt", "one", "--interpolate", 5, 6, "--num", 4)
    ends = tiles("ends", "--prompt", "one", "--seed", 5, "--num", 2)
    assert np.abs(way[0].astype(int) - ends[0]).max() <= 1 and np.abs(way[-1].astype(int) - ends[1]).max() <= 1
    for words in (["--negative-prompt", "blurry"], ["--swap", "no choice"], ["--prompt", "a", "--swap", "{a,b}"]):
        refused = cli("sample", run, "--output", tmp_path / "x", *words)
        assert refused.code == 2 and refused.err.count("\n") == 1


@pytest.mark.parametrize("name", BUILTIN_TEACHERS)
def test_what_ships_is_small_and_opens_in_stock_diffusers(name):
    from diffusers import DiffusionPipeline

    folder = builtin_folder(name) / "teacher"
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 8 * 2**20
    pipeline = DiffusionPipeline.from_pretrained(folder)
    teacher = load_teacher(name)
    assert type(pipeline).__name__ == json.loads((folder / "model_index.json").read_text())["_class_name"]
    assert teacher.name == name and teacher.shape[-1] in (4, 8, 16)
    assert "/" not in (folder / "model_index.json").read_text()


def test_the_builtin_text_teacher_does_what_words_say():
    """A few stock steps; the shipped classifier reads what was asked for."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(builtin_folder("digits-text") / "teacher", safety_checker=None)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, timestep_spacing="trailing")
    pipeline.set_progress_bar_config(disable=True)
    prompts = [f"a {weight} {word}" for word in NUMBERS for weight in ("bold", "thin")]
    made = pipeline(
        prompts, num_inference_steps=10, guidance_scale=2, height=8, width=8, output_type="pt",
        generator=[torch.Generator().manual_seed(i) for i in range(len(prompts))],
    ).images  # fmt: skip
    read = load_features("digits", (1, 8, 8)).read(made * 2 - 1)[1].argmax(1)
    assert (read == torch.arange(len(prompts)) // 2).float().mean() >= 0.9
    ink = made.mean((1, 2, 3))
    assert (ink[0::2] > ink[1::2]).float().mean() >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("own_heun", [False, True])
def test_a_cascade_of_teachers_has_rows_of_its_own(own_heun, cli, teachers, tmp_path):
    small = ["--prompts", "digits", "--steps", 2, "--batch-size", 4, "--set", "sample_every=0"]
    assert cli("distill", teachers / "if", "--output", tmp_path / "base", *small).code == 0
    large = [teachers / "if-upscaler", "--base", tmp_path / "base", "--output", tmp_path / "large"]
    assert cli("distill", *large, *small).code == 0
    measure = ["--features", "digits", "--reference", "digits", "--num", 70, "--calls", "2,4"]
    measure += [] if own_heun else ["--no-heun"]
    done = cli("evaluate", tmp_path / "large", *measure, "--output", tmp_path / "e.json")
    assert done.code == 0, done.err
    result = json.loads((tmp_path / "e.json").read_text())
    rows = {row["name"].partition(": ")[2] or row["name"]: row for row in result["rows"]}
    ddim, student = {steps: rows[f"DDIM {steps} + {steps}"] for steps in (1, 4)}, rows["student"]
    assert ddim[4]["calls"] == 8 and ddim[4]["path_error"] is None and ddim[4]["stage"] == "both"
    assert student["calls"] == 2, "one of each stage's student"
    assert ("Heun's exact path 50 + 50" in rows) == own_heun
    if own_heun:  # 101 calls of each
        exact = rows["Heun's exact path 50 + 50"]
        assert exact["calls"] == 202 and exact["frechet_distance"] is not None
    assert ddim[4]["faithfulness"] is not None and student["path_error"] is not None
    assert [row["calls"] for row in result["rows"] if row["best_of"] == 2] == [2]
    # An untouched student of one step is its teacher in one call from its t_max; the bases differ by what two steps of
    # training did, and the noises are those that the choice is made on.
    tried = [row for row in result["choice"] if (row["sampler"], row["steps"], row["spacing"]) == ("ddim", 1, "even")]
    assert tried[0]["frechet_distance"] == pytest.approx(student["frechet_distance"], rel=0.4)
    assert "makes an image in 2 calls" in student["call_equivalence"]["sentence"]
    within = cli("sample", tmp_path / "large" / "student", "--prompt", "one", "--output", tmp_path / "x.png")
    assert within.code == 0, "its run knows the base stage"
    shutil.copytree(tmp_path / "large" / "student", tmp_path / "alone")
    alone = cli("sample", tmp_path / "alone", "--prompt", "one", "--output", tmp_path / "y.png")
    assert alone.code == 2 and "name both" in alone.err


def test_labels_of_prompts_in_any_table(tmp_path):
    from bootdiff.data.prompts import read_prompt_labels

    rows = [{"prompt": "one", "label": 1}, {"prompt": " ", "label": 5}, {"prompt": "two", "label": 2}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "a.tsv").write_text("prompt\tlabel\none\t1\ntwo\tzwei\n")
    assert read_prompt_labels(tmp_path / "a.jsonl", None, "label") == (1, 2)
    with pytest.raises(BootdiffError, match="whole number, got 'zwei'"):
        read_prompt_labels(tmp_path / "a.tsv", None, "label")
    assert len(read_prompt_labels("digits", None, "label")) == 140
    (tmp_path / "a.txt").write_text("one")
    with pytest.raises(BootdiffError, match="no columns, so none is called label"):
        read_prompt_labels(tmp_path / "a.txt", None, "label")


def small(**fields) -> TeacherSettings:
    usual = {"batch_size": 8, "channels": [16, 16], "sample_every": 0, "log_every": 1, "keep_last": 9}
    return TeacherSettings(**{**usual, **fields})


@pytest.mark.parametrize("how", ["beside", "shared"])
@pytest.mark.parametrize("kind", ["unconditional", "classes"])
def test_a_student_is_trained_with_its_teacher_and_resumes(how, kind, tmp_path):
    """Both are whole pipelines; an interrupted run ends with the same bits as an undisturbed one."""
    words = small(kind=kind, steps=4, checkpoint_every=2, with_student=how, student={"t_max": 0.7, "delta": 0.1})
    train_teacher("digits", tmp_path / "whole", words)
    checkpoint = tmp_path / "whole" / "checkpoints" / "step-00000002"
    assert checkpoint.is_dir()
    (tmp_path / "again").mkdir()
    for part in ("config.yaml", "meta.json"):
        shutil.copy(tmp_path / "whole" / part, tmp_path / "again" / part)
    shutil.copytree(checkpoint, tmp_path / "again" / "checkpoints" / checkpoint.name)
    assert train_teacher("digits", tmp_path / "again", words)
    assert not train_teacher("digits", tmp_path / "again", words)
    for part in ("unet", "one-step/student/unet", "one-step/student-path/unet"):
        name = f"{part}/diffusion_pytorch_model.safetensors"
        here, there = load_file(tmp_path / "whole" / name), load_file(tmp_path / "again" / name)
        assert all(torch.equal(here[key], there[key]) for key in there)
    teacher, student = load_teacher(str(tmp_path / "whole")), load_student(tmp_path / "whole" / "one-step")
    assert student.t_max == pytest.approx(0.7, abs=1e-3)
    assert kind == "unconditional" or student.conditions["labels"] == list(range(10))
    moved = load_file(tmp_path / "whole" / "one-step/student-path/unet/diffusion_pytorch_model.safetensors")
    own = teacher.denoiser.network.state_dict()
    assert all(torch.equal(moved[key], own[key]) for key in own) == (how == "shared")


@pytest.mark.parametrize("kind", ["stable-diffusion", "if", "if-upscaler"])
def test_a_student_is_trained_with_a_teacher_of_words(kind, tmp_path):
    """Its pipeline answers a prompt."""
    sizes = {"resize": 16, "low_size": 8} if kind == "if-upscaler" else {}
    words = {**TINY, "kind": kind, "steps": 2, "with_student": "beside", "student": {"t_max": 0.8}, **sizes}
    assert train_teacher("digits", str(tmp_path / "run"), TeacherSettings(**words))
    sampler, card = open_student(str(tmp_path / "run" / "one-step"))
    assert card.teacher.endswith("run") and card.t_max == pytest.approx(0.8, abs=1e-3)
    assert not card.data_free
    adapter = sampler.adapter
    assert adapter.takes == "prompts" and adapter.upscales == (kind == "if-upscaler")
    condition = adapter.blank(2)
    made = sampler(torch.randn(2, *sampler.shape), condition)
    assert made.shape == (2, *sampler.shape) and torch.isfinite(made).all()


def test_settings_of_a_student_that_is_not_asked_for_are_refused(tmp_path):
    with pytest.raises(BootdiffError, match="ask for one with --with-student"):
        train_teacher("digits", tmp_path / "x", small(student={"t_max": 0.7}))
    with pytest.raises(BootdiffError, match="student: there is no setting 'tmax'"):
        train_teacher("digits", tmp_path / "x", small(with_student="beside", student={"tmax": 0.7}))
    for fields, expected in (
        ({"student": {"guidance_scale": 3.0}}, "student.guidance_scale: a student beside"),
        ({"student": {"distance": "lpips"}}, "lpips_weights"),
        ({"student": {"t_min": 0.995}}, "t_min"),
    ):
        with pytest.raises(BootdiffError, match=expected):
            train_teacher("digits", tmp_path / "x", small(with_student="beside", **fields))
    with pytest.raises(BootdiffError, match="exclude each other"):
        train_teacher("digits", tmp_path / "x", small(with_student="shared", gradient_checkpointing=True))
    assert not (tmp_path / "x").exists()
