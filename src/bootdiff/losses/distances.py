"""Distances between images: from two tensors (b, ...) to one number a sample, (b,).

Each is a mean over pixels, so that the learning rate does not depend on the image's size.

Source: docs/method.md, "Distances".
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Distance(Protocol):
    """A distance between two batches of images (b, ...), one number a sample: (b,).

    ``degree`` says how the distance grows with a difference: d(a, a + k h) ∝ k^degree. A weight uses it to bring steps
    of different sizes to one scale.
    """

    degree: int

    def __call__(self, a: Tensor, b: Tensor) -> Tensor: ...


class SquaredError:
    """The mean squared difference of each sample, (b,): the paper's choice."""

    degree = 2

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().flatten(1).mean(1)


class AbsoluteError:
    """The mean absolute difference of each sample, (b,)."""

    degree = 1

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().flatten(1).mean(1)


class PseudoHuber:
    """The pseudo-Huber distance: sqrt(mean squared difference + c²) − c, with c = 0.03 in units of a pixel.

    Source: Song & Dhariwal, 2023, who take another c.
    """

    degree = 1
    c = 0.03

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return ((a - b).square().flatten(1).mean(1) + self.c**2).sqrt() - self.c


SIMPLE: dict[str, Distance] = {"l2": SquaredError(), "l1": AbsoluteError(), "huber": PseudoHuber()}


def make_distance(name: str, shape: tuple[int, ...], lpips_weights: str | None = None) -> Distance:
    """Return the distance that a setting names.

    Args:
        shape: the images' shape, without the batch.
        lpips_weights: the file or folder with LPIPS's weights; only ``lpips`` needs it.

    Raises:
        BootdiffError: if the distance does not take such images, or needs weights and got none.
    """
    if name in SIMPLE:
        return SIMPLE[name]
    from bootdiff.losses.perceptual import digits_distance, lpips

    return digits_distance(shape) if name == "digits" else lpips(shape, lpips_weights)
