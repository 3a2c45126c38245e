"""Distances between images: (b, ...) twice to (b,), a mean over pixels so that the rate does not depend on size.

Source: docs/method.md, "Distances".
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Distance(Protocol):
    """A per-sample distance.

    ``degree`` is its power law, d(a, a + k h) ∝ k^degree: by it a weight brings steps of other sizes to one scale.
    """

    degree: int

    def __call__(self, a: Tensor, b: Tensor) -> Tensor: ...


class SquaredError:
    """Mean squared difference: the paper's choice."""

    degree = 2

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().flatten(1).mean(1)


class AbsoluteError:
    """Mean absolute difference."""

    degree = 1

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().flatten(1).mean(1)


class PseudoHuber:
    """sqrt(mean squared difference + c²) − c with c = 0.03 for a pixel (Song & Dhariwal, 2023, with another c)."""

    degree = 1
    c = 0.03

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return ((a - b).square().flatten(1).mean(1) + self.c**2).sqrt() - self.c


SIMPLE: dict[str, Distance] = {"l2": SquaredError(), "l1": AbsoluteError(), "huber": PseudoHuber()}


def make_distance(name: str, shape: tuple[int, ...], lpips_weights: str | None = None) -> Distance:
    """The distance that a setting names.

    Args:
        shape: of the images, without the batch.
        lpips_weights: for ``lpips``, where its weights are.

    Raises:
        BootdiffError: for a distance that does not take such images, or without its weights.
    """
    if name in SIMPLE:
        return SIMPLE[name]
    from bootdiff.losses.perceptual import digits_distance, lpips

    return digits_distance(shape) if name == "digits" else lpips(shape, lpips_weights)
