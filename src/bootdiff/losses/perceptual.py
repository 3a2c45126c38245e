"""Perceptual distances: how far apart the activations of two images are in a frozen classifier.

Source: LPIPS, Zhang et al., 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from bootdiff.builtin.classifier import DigitsClassifier
from bootdiff.core.errors import BootdiffError
from bootdiff.losses.lpips_weights import VGG_CHANNELS, VGG_STAGES, read_lpips

#: ImageNet's mean and standard deviation of each channel, for images in [−1, 1]
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
#: the least height and width that VGG takes, because it halves its input four times
SMALLEST = 32


class Perceptual(nn.Module):
    """A perceptual distance: the sum over stages of the mean over pixels of ``weights · (â − b̂)²``.

    â and b̂ are the stage's outputs for the two images, scaled to unit length over the channels of each pixel.

    Args:
        stages: the network's parts, applied one after another; each one's output, (b, c, h, w) or (b, c), is compared.
        weights: one tensor (c,) for each stage, with values that are not negative.
        prepare: turns images in [−1, 1] into the first stage's input.
        softness: the share of the batch's mean length that is added to each length. LPIPS has none. A small network is
            silent on the background, where unit length would make noise as loud as the image.
    """

    #: the distance is about quadratic in small differences
    degree = 2

    def __init__(
        self, stages: Sequence[nn.Module], weights: Sequence[Tensor], prepare: nn.Module, softness: float = 0.0
    ) -> None:
        super().__init__()
        self.softness = softness
        self.stages, self.prepare = nn.ModuleList(stages), prepare
        self.weights = nn.ParameterList(weights)
        self.requires_grad_(False).eval()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the distance (b,) of two batches of images (b, c, h, w) in [−1, 1]."""
        both = self.prepare(torch.cat([a, b]))
        total = torch.zeros(len(a), device=a.device)
        for stage, weight in zip(self.stages, self.weights, strict=True):
            both = stage(both)
            length = both.square().sum(1, keepdim=True).sqrt()
            unit = both / (length + self.softness * length.detach().mean() + 1e-10)
            squared = (unit[: len(a)] - unit[len(a) :]).square().flatten(2 if both.ndim > 2 else 1)
            per_channel = squared.mean(2) if both.ndim > 2 else squared
            total = total + per_channel @ weight
        return total


class ForVGG(nn.Module):
    """Prepares images for VGG: grey ones become RGB, small ones are enlarged, and ImageNet's normalisation follows."""

    def __init__(self) -> None:
        super().__init__()
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """Return images (b, 1 or 3, h, w) in [−1, 1] as VGG takes them: (b, 3, h, w), h and w at least 32."""
        side = min(images.shape[-2:])
        if side < SMALLEST:
            images = nn.functional.interpolate(images, scale_factor=SMALLEST / side, mode="bilinear")
        return (images.expand(-1, 3, -1, -1) - self.shift) / self.scale


def lpips(shape: tuple[int, ...], where: str | None) -> Perceptual:
    """Return LPIPS with VGG-16, from local weights; images smaller than 32 are enlarged, and grey ones made RGB.

    Args:
        shape: the images' shape, without the batch: 1 or 3 channels, height, width.
        where: a ``.safetensors``, ``.pth`` or ``.pt`` file with the state of ``lpips.LPIPS(net="vgg")``, or a folder
            with torchvision's VGG-16 and LPIPS's own linear layers in two such files.

    Raises:
        BootdiffError: if the images have another shape, or if the weights are missing or belong to another network.
    """
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise BootdiffError(f"distance lpips takes images of 1 or 3 channels, got {tuple(shape)}; use l2, l1 or huber.")
    if where is None:
        raise BootdiffError("distance lpips needs lpips_weights: a file or folder with VGG-16's and LPIPS's weights.")
    weights = read_lpips(Path(where))
    stages: list[nn.Module] = []
    before = 3
    for number, (places, channels) in enumerate(zip(VGG_STAGES, VGG_CHANNELS, strict=True)):
        layers: list[nn.Module] = [nn.MaxPool2d(2)] if number else []
        for place in places:
            layer = nn.Conv2d(before, channels, 3, padding=1)
            layer.load_state_dict({part: weights[f"conv{place}.{part}"] for part in ("weight", "bias")})
            layers += [layer, nn.ReLU()]
            before = channels
        stages.append(nn.Sequential(*layers))
    return Perceptual(stages, [weights[f"lin{i}"].flatten() for i in range(len(stages))], ForVGG())


def digits_distance(shape: tuple[int, ...]) -> Perceptual:
    """Return a perceptual distance like LPIPS with the builtin digit classifier as its network.

    Lengths are softened (``softness`` of ``Perceptual``), and every channel of every stage has weight 1.

    Raises:
        BootdiffError: if the images are not of shape 1×8×8.
    """
    if tuple(shape) != DigitsClassifier.shape:
        raise BootdiffError(f"distance digits takes images of shape {DigitsClassifier.shape}, got {tuple(shape)}.")
    body = DigitsClassifier.builtin().body
    stages = [body[:2], body[2:4], body[4:]]
    return Perceptual(stages, [torch.ones(32), torch.ones(64), torch.ones(64)], nn.Identity(), softness=0.5)
