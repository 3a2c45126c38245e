"""The ends of the teacher's path from fixed noises, and what a student's are compared with.

Source: docs/method.md, "Looking without data".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bootdiff.metrics.frechet import Accumulator, Statistics, frechet_distance

#: directions of the teacher's samples in which distributions are compared
DIRECTIONS = 16
#: a value is saturated from this share of the teacher's 99th percentile on
SATURATED = 0.98


@dataclass(frozen=True)
class Space:
    """The leading directions of the spread of the teacher's samples, in which distributions are compared.

    Args:
        views: of the teacher's samples, (n, d): features, or the samples' own values.
    """

    views: Tensor

    @cached_property
    def centre(self) -> Tensor:
        """Their mean, (d,)."""
        return self.views.double().mean(0)

    @cached_property
    def directions(self) -> Tensor:
        """The leading directions of their spread, (d, k): few, because the samples are."""
        spread = self.views.double() - self.centre
        values, vectors = torch.linalg.eigh(spread @ spread.T)
        count = max(1, min(DIRECTIONS, len(spread) // 8, int((values > 1e-9 * values[-1]).sum())))
        return (spread.T @ vectors[:, -count:]) / values[-count:].clamp(min=1e-30).sqrt()

    @cached_property
    def statistics(self) -> Statistics:
        """Of the teacher's samples, in those directions."""
        return self.seen(self.views)

    @cached_property
    def variance(self) -> float:
        """Of the teacher's samples, in those directions together."""
        return float(self.statistics.covariance.trace())

    def seen(self, views: Tensor) -> Statistics:
        """Of any samples' views (n, d), in the same directions."""
        accumulator = Accumulator()
        accumulator.add((views.double() - self.centre) @ self.directions)
        return accumulator.statistics()

    def distance(self, views: Tensor) -> float:
        """Fréchet distance of any samples to the teacher's; infinite where a view is not finite."""
        return frechet_distance(self.seen(views), self.statistics) if bool(torch.isfinite(views).all()) else math.inf


@dataclass(frozen=True)
class PathEnds:
    """What a student's samples are compared with.

    Args:
        ends: of the teacher's path, y at t_min, (n, *shape).
        starts: of the first of them, f(x_T, t_max), (m ≤ n, *shape) (Eq. 9).
        views: of the ends, (n, d): what the middle of the teacher's network makes of them, or their own values.
        textures: of the ends, (n, c): what its last block makes of them; empty where it has none.
    """

    ends: Tensor
    starts: Tensor
    views: Tensor
    textures: Tensor

    @property
    def by_values(self) -> bool:
        """Whether distributions are compared by the samples' own values."""
        return torch.equal(self.views, self.ends.flatten(1))

    @cached_property
    def space(self) -> Space:
        """Of the views."""
        return Space(self.views)

    @cached_property
    def texture(self) -> Space | None:
        """Of the textures; None where there are none."""
        return Space(self.textures) if self.textures.numel() else None

    @cached_property
    def diversity(self) -> float:
        """Over seeds."""
        return diversity_of(self.ends)

    @cached_property
    def saturated(self) -> float:
        """The absolute value from which on one counts as saturated."""
        values = self.ends.abs().flatten()
        return SATURATED * float(values.kthvalue(max(1, int(0.99 * len(values)))).values)


def mean_square(values: Tensor) -> float:
    """Over all values, summed in float64."""
    return float(values.double().square().mean())


def diversity_of(samples: Tensor) -> float:
    """Root mean square difference of two seeds under one condition, over all values."""
    half = len(samples) // 2
    return math.sqrt(mean_square(samples[:half] - samples[half:]))


def channels(prefix: str, samples: Tensor, level: float) -> dict[str, list[float]]:
    """Mean, deviation and saturated share of every channel; samples without channels are one."""
    values = samples.double().transpose(0, 1).flatten(1) if samples.ndim > 2 else samples.double().flatten()[None]
    return {
        f"{prefix}mean": values.mean(1).tolist(),
        f"{prefix}deviation": values.std(1).tolist(),
        f"{prefix}saturation": (values.abs() >= level).double().mean(1).tolist(),
    }


def colours(prefix: str, samples: Tensor) -> dict[str, float]:
    """The colour saturation of pictures (n, 3, h, w): the mean over pixels of the channels' deviation; else none."""
    if samples.ndim != 4 or samples.shape[1] != 3:
        return {}
    return {f"{prefix}colour": float(samples.double().std(1).mean())}
