"""Distances between images: (b, ...) twice to (b,), a mean over pixels so that the rate does not depend on size."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Distance(Protocol):
    """A per-sample distance; ``degree`` is its power law, d(k a, k b) = k^degree d(a, b), for large differences."""

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
    """sqrt(mean squared difference + c²) − c with c = 0.03 (Song & Dhariwal, 2023, scaled to a mean over pixels)."""

    degree = 1
    c = 0.03

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return ((a - b).square().flatten(1).mean(1) + self.c**2).sqrt() - self.c


DISTANCES: dict[str, Distance] = {"l2": SquaredError(), "l1": AbsoluteError(), "huber": PseudoHuber()}
