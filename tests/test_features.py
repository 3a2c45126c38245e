"""Feature spaces: what they compute, what they are called, and what they refuse."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from bootdiff.core.errors import BootdiffError
from bootdiff.data.pictures import to_pixels, to_unit
from bootdiff.evaluation.references import open_features
from bootdiff.metrics.features import as_saved, load_features
from bootdiff.metrics.inception import THREE, Block, Convolution, Inception, InceptionFeatures
from bootdiff.metrics.onnx_features import OnnxFeatures
from bootdiff.metrics.transformer_features import IMAGENET, OPENAI, Preprocessing, read_preprocessing
from bootdiff.teachers import Gaussian

GREY = (1, 8, 8)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) / 2


def pictures(*shape: int, seed: int = 0) -> torch.Tensor:
    """8-bit images in [−1, 1]."""
    return to_unit(torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8))


# -- names --------------------------------------------------------------------------------------------------------


def test_the_fashion_space_is_the_shipped_classifier():
    pytest.importorskip("onnxruntime")
    space = load_features("fashion", (1, 32, 32))
    features, logits = space.read(noise(3, 1, 32, 32))
    assert space.name == "fashion-8bca4fb8" and space.shape == (1, 32, 32) and space.knows_labels
    assert features.shape == (3, 128) and logits.shape == (3, 10)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fasion", r"no feature space 'fasion'; expected digits, fashion, .*Did you mean 'fashion'\?"),
        ("incepton:a.pth", r"Did you mean 'inception'\?"),
        ("inception", r"expected .*inception:FILE"),
        ("inception:nowhere.pth", "no file of weights at nowhere.pth"),
        ("nowhere.onnx", "no ONNX file at nowhere.onnx"),
        ("dinov2:nowhere", r"no folder at 'nowhere'; expected dinov2: with a folder or a hub id"),
        ("clip:no/where", r"'no/where' is no folder here and could not be fetched from the hub"),
    ],
)
def test_a_space_that_is_not_there_is_refused_in_one_line(name, words):
    with pytest.raises(BootdiffError, match=words) as refusal:
        load_features(name, GREY)
    assert "\n" not in str(refusal.value)


def test_fashion_without_onnxruntime_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BootdiffError, match=r"pip install 'bootdiff\[onnx\]'"):
        load_features("fashion", GREY)


def onnx_file(path, shape, kind=None, more=()):
    """A file that flattens images of ``shape``."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, kind or onnx.TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info(name, kind, shape) for name in ("images", *more)]
    output = helper.make_tensor_value_info("features", kind, [shape[0], shape[1] * shape[2] * shape[3]])
    graph = helper.make_graph([helper.make_node("Flatten", ["images"], ["features"])], "g", inputs, [output])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_an_onnx_file_with_a_fixed_batch_takes_any_number_of_images(tmp_path):
    pytest.importorskip("onnxruntime")
    features = OnnxFeatures(onnx_file(tmp_path / "four.onnx", [4, 1, 2, 2]))
    images = torch.arange(24.0).reshape(6, 1, 2, 2)
    assert torch.equal(features(images), images.flatten(1))


def test_an_onnx_file_with_other_inputs_is_refused(tmp_path):
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    with pytest.raises(BootdiffError, match=r"should take one input, images in float32; it takes images \(.*\), more"):
        OnnxFeatures(onnx_file(tmp_path / "two.onnx", ["b", 1, 2, 2], more=("more",)))
    with pytest.raises(BootdiffError, match=r"images in float32; it takes images \(tensor.float16"):
        OnnxFeatures(onnx_file(tmp_path / "half.onnx", ["b", 1, 2, 2], onnx.TensorProto.FLOAT16))


def test_an_onnx_file_whose_weights_are_not_finite_is_refused_when_it_is_opened(tmp_path):
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    ends = [[helper.make_tensor_value_info("images", kind, ["b", 1, 1, 2])]]
    ends += [[helper.make_tensor_value_info("features", kind, ["b", 2])]]
    weights = helper.make_tensor("weights", kind, [2], [1.0, float("nan")])
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("Add", ["flat", "weights"], ["features"]),
    ]
    graph = helper.make_graph(nodes, "g", *ends, [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "a.onnx")
    with pytest.raises(BootdiffError, match=r"a\.onnx gives values that are not finite .* fetch or export it again"):
        load_features(str(tmp_path / "a.onnx"), GREY)


def test_an_onnx_file_without_feature_vectors_is_refused(tmp_path):
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    ends = [[helper.make_tensor_value_info(name, kind, ["b", 1, 2, 2])] for name in ("images", "features")]
    graph = helper.make_graph([helper.make_node("Neg", ["images"], ["features"])], "g", *ends)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "a.onnx")
    (tmp_path / "b.onnx").write_bytes(b"no network")
    with pytest.raises(BootdiffError, match=r"features of shape \(b, d\); its 'features' is \['b', 1, 2, 2\]"):
        load_features(str(tmp_path / "a.onnx"), GREY)
    with pytest.raises(BootdiffError, match=r"b\.onnx cannot be read as an ONNX file"):
        load_features(str(tmp_path / "b.onnx"), GREY)


# -- images of any size --------------------------------------------------------------------------------------------


def test_images_are_judged_as_the_files_they_would_be_saved_as():
    images = noise(2, 1, 4, 4) * 4
    seen = as_saved(images, "a")
    assert seen.shape == (2, 3, 4, 4) and float(seen.abs().max()) <= 1
    assert torch.equal(seen[:, :1], to_unit(to_pixels(images))) and torch.equal(seen[:, 0], seen[:, 2])
    with pytest.raises(BootdiffError, match=r"a takes images \(b, c, h, w\) of 1 or 3 channels, got \(2, 4, 8, 8\)"):
        as_saved(noise(2, 4, 8, 8), "a")


def test_a_space_of_any_size_opens_for_grey_and_colour_only(dino):
    name = f"dinov2:{dino}"
    for channels in (1, 3):
        assert open_features(name, Gaussian(shape=(channels, 12, 8))).shape is None
    with pytest.raises(BootdiffError, match=r"takes images of 1 or 3 channels; .* makes \(4, 8, 8\)"):
        open_features(name, Gaussian(shape=(4, 8, 8)))


# -- Inception -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    """A file of random weights, named as pytorch-fid's are."""
    torch.manual_seed(0)
    network = Inception()
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(network.state_dict(), path)
    return path


def changed(path, folder, change) -> str:
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, folder / "changed.pth")
    return f"inception:{folder / 'changed.pth'}"


def test_inceptions_weights_are_named_and_shaped_as_pytorch_fids():
    with torch.device("meta"):
        network = Inception()
    state = network.state_dict()
    assert sum(p.numel() for p in network.parameters()) == 23_850_960
    assert len([name for name in state if not name.endswith("num_batches_tracked")]) == 472
    known = {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Conv2d_4a_3x3.bn.running_var": (192,),
        "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_5d.branch3x3dbl_3.conv.weight": (96, 96, 3, 3),
        "Mixed_6a.branch3x3.conv.weight": (384, 288, 3, 3),
        "Mixed_6b.branch7x7dbl_4.conv.weight": (128, 128, 7, 1),
        "Mixed_6e.branch_pool.conv.weight": (192, 768, 1, 1),
        "Mixed_7a.branch7x7x3_2.conv.weight": (192, 192, 1, 7),
        "Mixed_7b.branch3x3_2a.conv.weight": (384, 384, 1, 3),
        "Mixed_7c.branch3x3dbl_3b.bn.bias": (384,),
        "fc.weight": (1008, 2048),
        "fc.bias": (1008,),
    }
    assert {name: tuple(state[name].shape) for name in known} == known


def pooled(mean: bool, image: torch.Tensor) -> torch.Tensor:
    """What a block's pooled branch sees."""
    block = Block(1, {}, pooled=1, mean=mean).eval()
    block.branch_pool = nn.Identity()
    return block(image)


def test_a_blocks_mean_does_not_count_the_padding():
    ones = torch.ones(1, 1, 4, 4)
    assert torch.equal(pooled(True, ones), ones)
    peak = torch.zeros(1, 1, 4, 4)
    peak[..., 0, 0] = 1
    assert pooled(False, peak).sum() == 4 and pooled(True, peak)[0, 0, 0, 0] == 1 / 4


def test_a_block_that_halves_keeps_what_it_pools():
    block = Block(2, {"a": [(3, THREE)]}).eval()
    image = noise(1, 2, 9, 9)
    made = block(image)
    assert made.shape == (1, 5, 4, 4)
    assert torch.equal(made[:, 3:], nn.functional.max_pool2d(image, 3, 2))
    assert isinstance(block.a, Convolution) and block.a.conv.stride == (2, 2)


def test_inceptions_features_do_not_depend_on_the_batch_or_the_file(inception, tmp_path):
    space = load_features(f"inception:{inception}", GREY)
    images = noise(3, 1, 24, 20)
    features, logits = space.read(images)
    assert space.shape is None and not space.knows_labels
    assert features.shape == (3, 2048) and logits.shape == (3, 1008) and bool(torch.isfinite(features).all())
    torch.testing.assert_close(space(images[1:2].expand(-1, 3, -1, -1)), features[1:2], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(features[0], features[1])
    torch.testing.assert_close(logits, features @ space.network.fc.weight.T)
    save_file(torch.load(inception, weights_only=True), tmp_path / "same.safetensors")
    assert InceptionFeatures(tmp_path / "same.safetensors").name == space.name


def test_another_network_than_inception_is_refused_in_one_line(inception, tmp_path):
    broken = [
        (
            lambda s: s.pop("Mixed_6c.branch7x7_2.conv.weight"),
            r"lacks 1 of 472 weights, such as 'Mixed_6c\.branch7x7_2",
        ),
        (lambda s: s.update({"AuxLogits.fc.bias": torch.zeros(3)}), "has 1 weights too many, such as 'AuxLogits.fc"),
        (lambda s: s.update({"fc.bias": torch.zeros(1000)}), r"has 'fc.bias' of shape \(1000,\) instead of \(1008,\)"),
        (lambda s: s["fc.bias"].fill_(float("nan")), "'fc.bias' in .* not finite"),
    ]
    for change, words in broken:
        with pytest.raises(BootdiffError, match=words):
            load_features(changed(inception, tmp_path, change), GREY)


def test_a_file_that_asks_to_run_code_is_not_loaded(tmp_path):
    torch.save({"fc.bias": print}, tmp_path / "a.pth")
    with pytest.raises(BootdiffError, match=r"a\.pth cannot be read as weights"):
        load_features(f"inception:{tmp_path / 'a.pth'}", GREY)


# -- transformers --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    """A random DINOv2 of two layers."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14, layerscale_value=0.5
    )
    folder = tmp_path_factory.mktemp("transformers") / "dino"
    Dinov2Model(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A random CLIP of one layer, whose projection is narrower than the default of its parts."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    part = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**part, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}
    config = CLIPConfig(text_config=text, vision_config={**part, "image_size": 32, "patch_size": 8}, projection_dim=12)
    folder = tmp_path_factory.mktemp("transformers") / "clip"
    CLIPModel(config).save_pretrained(folder)
    return folder


def edited(source, folder, change):
    """A copy of a model's folder whose weights were changed."""
    folder.mkdir()
    weights = load_file(source / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text((source / "config.json").read_text())
    return folder


def test_dinov2_is_the_class_token_after_the_last_normalisation(dino):
    from transformers import Dinov2Model

    space, images = load_features(f"dinov2:{dino}", GREY), noise(3, 3, 40, 30)
    seen = IMAGENET(as_saved(images, "a"))
    with torch.no_grad():
        expected = Dinov2Model.from_pretrained(dino).eval()(seen).last_hidden_state[:, 0]
    features, logits = space.read(images)
    assert seen.shape == (3, 3, 224, 224) and logits is None
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(space(images[1:2]), features[1:2], atol=1e-5, rtol=1e-5)


def test_clip_is_the_projected_image_embedding(clip):
    from transformers import CLIPModel

    space, images = load_features(f"clip:{clip}", GREY), noise(2, 1, 50, 50)
    model = CLIPModel.from_pretrained(clip).eval()
    with torch.no_grad():
        seen = Preprocessing(32, (32, 32), OPENAI.mean, OPENAI.std)(as_saved(images, "a"))
        expected = model.visual_projection(model.vision_model(seen).pooler_output)
    assert expected.shape == (2, 12)
    torch.testing.assert_close(space(images), expected)


def test_a_spaces_name_follows_its_weights_and_its_preprocessing(dino, tmp_path):
    same = edited(dino, tmp_path / "same", lambda weights: None)
    names = [load_features(f"dinov2:{folder}", GREY).name for folder in (dino, same)]
    other = edited(dino, tmp_path / "other", lambda weights: weights["layernorm.bias"].add_(1))
    names.append(load_features(f"dinov2:{other}", GREY).name)
    (same / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5, 0.5, 0.5]}))
    names.append(load_features(f"dinov2:{same}", GREY).name)
    assert names[0] == names[1] and len(set(names)) == 3 and all(name.startswith("dinov2-") for name in names)


def test_images_are_prepared_as_pillow_prepares_them():
    images = pictures(1, 3, 45, 30)
    ours = Preprocessing(20, (16, 18), (0.0,) * 3, (1.0,) * 3)(images)
    file = Image.fromarray(to_pixels(images)[0].permute(1, 2, 0).numpy()).resize((20, 30), Image.Resampling.BICUBIC)
    theirs = torch.from_numpy(np.array(file)).permute(2, 0, 1)[:, 7:23, 1:19]
    assert ours.shape == (1, 3, 16, 18)
    assert float((ours[0] * 255 - theirs).abs().max()) <= 1 + 1e-4


def test_preprocessing_is_read_in_the_old_form_and_the_new(tmp_path):
    old = {"size": 24, "crop_size": 16, "image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 2], "resample": 2}
    new = {**old, "size": {"shortest_edge": 24}, "crop_size": {"height": 16, "width": 16}, "do_rescale": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(old))
    read = read_preprocessing(tmp_path, IMAGENET)
    assert read == Preprocessing(24, (16, 16), (0.1, 0.2, 0.3), (1.0, 1.0, 2.0), "bilinear")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(new))
    assert read_preprocessing(tmp_path, IMAGENET) == read
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": new}))
    assert read_preprocessing(tmp_path, IMAGENET) == read
    square = {"size": {"height": 8, "width": 8}, "do_center_crop": False, "do_normalize": False}
    (tmp_path / "processor_config.json").write_text(json.dumps(square))
    assert read_preprocessing(tmp_path, IMAGENET) == Preprocessing((8, 8), None, (0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize(
    "words",
    [{"size": {"longest": 3}}, {"crop_size": 300}, {"image_std": [1, 0, 1]}, {"image_mean": 3}, {"resample": 77}],
)
def test_preprocessing_that_cannot_be_done_is_refused(tmp_path, words):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(words))
    with pytest.raises(BootdiffError, match=r"preprocessor_config\.json is no preprocessing of images"):
        read_preprocessing(tmp_path, IMAGENET)


#: what is done to a transformer's weights, and what the line must hold
WRONG = {
    "one missing": (lambda weights, name: weights.pop(name), "lack 1 tensor"),
    "one more": (lambda weights, name: weights.update(more=torch.ones(2)), "does not know, such as 'more'"),
    "another shape": (lambda weights, name: weights.update({name: torch.ones(3)}), "of another shape"),
    "NaN": (lambda weights, name: weights[name].view(-1)[:1].fill_(torch.nan), "not finite"),
    "infinity": (lambda weights, name: weights[name].view(-1)[:1].fill_(torch.inf), "not finite"),
}


@pytest.mark.parametrize("how", WRONG)
@pytest.mark.parametrize("kind", ["dinov2", "clip"])
def test_a_transformer_s_weights_are_complete_its_own_and_finite(dino, clip, tmp_path, kind, how):
    change, words = WRONG[how]
    source, name = (dino, "layernorm.weight") if kind == "dinov2" else (clip, "visual_projection.weight")
    folder = edited(source, tmp_path / "other", lambda weights: change(weights, name))
    with pytest.raises(BootdiffError, match=words) as refusal:
        load_features(f"{kind}:{folder}", GREY)
    assert ("more" if how == "one more" else name) in str(refusal.value) and "\n" not in str(refusal.value)


def test_another_model_than_asked_for_is_refused_in_one_line(dino, clip, tmp_path):
    def lack(weights):
        weights.pop("layernorm.bias")

    def narrow(weights):
        weights["layernorm.bias"] = torch.zeros(3)

    unsafe = edited(dino, tmp_path / "unsafe", lambda weights: None)
    (unsafe / "model.safetensors").unlink()
    torch.save({}, unsafe / "pytorch_model.bin")
    expected = {
        f"dinov2:{clip}": "holds a model of type 'clip'; expected dinov2 or dinov2_with_registers",
        f"clip:{dino}": "holds a model of type 'dinov2'; expected clip or clip_vision_model",
        f"dinov2:{edited(dino, tmp_path / 'lack', lack)}": "lack 1 tensor .*such as 'layernorm.bias'",
        f"dinov2:{edited(dino, tmp_path / 'narrow', narrow)}": "another shape .*such as 'layernorm.bias'",
        f"dinov2:{unsafe}": r"the Dinov2Model in .* cannot be read",
    }
    for name, words in expected.items():
        with pytest.raises(BootdiffError, match=words):
            load_features(name, GREY)
