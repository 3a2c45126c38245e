"""Perceptual distances: written out by hand, from either naming of their weights, and for small and grey images."""

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from bootdiff.core.errors import BootdiffError
from bootdiff.losses.distances import make_distance
from bootdiff.losses.lpips_weights import VGG_CHANNELS, VGG_STAGES
from bootdiff.losses.perceptual import SCALE, SHIFT, Perceptual

GENERATOR = torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """Random weights in torchvision's and LPIPS's naming."""
    state, before = {}, 3
    for number, (places, channels) in enumerate(zip(VGG_STAGES, VGG_CHANNELS, strict=True)):
        for place in places:
            scale = (2 / (9 * before)) ** 0.5
            state[f"features.{place}.weight"] = scale * torch.randn(channels, before, 3, 3, generator=GENERATOR)
            state[f"features.{place}.bias"] = 0.1 * torch.randn(channels, generator=GENERATOR)
            before = channels
        state[f"lin{number}.model.1.weight"] = torch.rand(1, channels, 1, 1, generator=GENERATOR)
    return state


def by_hand(state, a, b) -> torch.Tensor:
    """LPIPS in plain loops."""
    total = torch.zeros(len(a))
    x, y = (((v - torch.tensor(SHIFT)[:, None, None]) / torch.tensor(SCALE)[:, None, None]) for v in (a, b))
    for number, places in enumerate(VGG_STAGES):
        if number:
            x, y = functional.max_pool2d(x, 2), functional.max_pool2d(y, 2)
        for place in places:
            kernel, bias = state[f"features.{place}.weight"], state[f"features.{place}.bias"]
            x, y = (functional.conv2d(v, kernel, bias, padding=1).relu() for v in (x, y))
        difference = functional.normalize(x, dim=1) - functional.normalize(y, dim=1)
        total = total + functional.conv2d(difference**2, state[f"lin{number}.model.1.weight"]).mean((1, 2, 3))
    return total


def images(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = 2 * torch.rand(2, *shape, generator=GENERATOR) - 1
    return a, b


def test_lpips_equals_its_definition(weights, tmp_path):
    save_file(weights, tmp_path / "lpips.safetensors")
    distance, (a, b) = make_distance("lpips", (3, 32, 32), str(tmp_path / "lpips.safetensors")), images(2, 3, 32, 32)
    torch.testing.assert_close(distance(a, b), by_hand(weights, a, b), rtol=1e-4, atol=1e-6)
    assert torch.equal(distance(a, a), torch.zeros(2)) and bool((distance(a, b) > 0).all())


def test_both_namings_and_two_files_are_read(weights, tmp_path):
    (tmp_path / "folder").mkdir()
    vgg = {k: v for k, v in weights.items() if k.startswith("features")}
    save_file(vgg, tmp_path / "folder" / "vgg16.safetensors")
    torch.save({k: v for k, v in weights.items() if k not in vgg}, tmp_path / "folder" / "vgg.pth")
    names = {"features": "net.slice1", "lin": "lins."}
    other = {k.replace("features", names["features"]).replace("lin", "lins.") if "features" not in k else
             k.replace("features", names["features"]): v for k, v in weights.items()}  # fmt: skip
    torch.save(other, tmp_path / "package.pth")
    a, b = images(2, 3, 32, 32)
    first, second = (make_distance("lpips", (3, 32, 32), str(tmp_path / name)) for name in ("folder", "package.pth"))
    assert torch.equal(first(a, b), second(a, b))


def test_a_weight_in_two_files_is_refused(weights, tmp_path):
    for name in ("a.safetensors", "b.safetensors"):
        save_file(weights, tmp_path / name)
    with pytest.raises(BootdiffError, match=r"holds conv0\.bias in two files, a\.safetensors and b\.safetensors"):
        make_distance("lpips", (3, 32, 32), str(tmp_path))


def test_small_and_grey_images_are_enlarged_and_made_rgb(weights, tmp_path):
    save_file(weights, tmp_path / "lpips.safetensors")
    distance, (a, b) = make_distance("lpips", (1, 8, 8), str(tmp_path / "lpips.safetensors")), images(2, 1, 8, 8)
    large = [functional.interpolate(v, size=32, mode="bilinear").expand(-1, 3, -1, -1) for v in (a, b)]
    torch.testing.assert_close(distance(a, b), by_hand(weights, *large), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 8, 8)])
def test_the_digits_distance_teaches_images_and_not_its_own_network(shape):
    distance, (a, b) = make_distance("digits", shape), images(4, *shape)
    a.requires_grad_()
    distance(a, b).sum().backward()
    assert isinstance(distance, Perceptual) and float(a.grad.abs().sum()) > 0
    assert not any(p.requires_grad for p in distance.parameters())
    rows = distance(torch.cat([a, b]), torch.cat([b, a]))
    torch.testing.assert_close(rows[:4], rows[4:])
    near = distance(a, a + 0.01 * torch.randn(a.shape, generator=GENERATOR))
    assert bool((near < distance(a, b)).all())


@pytest.mark.parametrize(
    "change, words",
    [(lambda s: s.pop("features.5.weight"), "lacks conv5.weight"), (lambda s: s.pop("lin3.model.1.weight"), "lin3"),
     (lambda s: s.update({"features.0.weight": torch.zeros(64, 1, 3, 3)}), "conv0.weight .* expected"),
     (lambda s: s.update({"features.2.bias": torch.full((64,), torch.nan)}), "conv2.bias .* not finite"),
     (lambda s: s.update({"lin2.model.1.weight": torch.full((1, 256, 1, 1), torch.inf)}), "lin2 .* not finite")],
    ids=["a layer less", "a linear layer less", "another shape", "NaN in a layer", "infinity in a linear layer"],
)  # fmt: skip
def test_other_weights_are_refused_by_name(weights, tmp_path, change, words):
    state = dict(weights)
    change(state)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(BootdiffError, match=words):
        make_distance("lpips", (3, 32, 32), str(tmp_path / "w.safetensors"))


def test_images_that_vgg_does_not_take_are_refused():
    with pytest.raises(BootdiffError, match="1 or 3 channels"):
        make_distance("lpips", (4, 8, 8), "anywhere")
