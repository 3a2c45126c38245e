"""The ends of the teacher's path from fixed noises, and the figures by which a student is compared with them.

Source: docs/method.md, "Looking without data".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from bootdiff.metrics.frechet import Accumulator, Statistics, frechet_distance

#: the largest number of directions in which distributions are compared
DIRECTIONS = 16
#: a value is saturated if it reaches this share of the teacher's 99th percentile
SATURATED = 0.98


@dataclass(frozen=True)
class Space:
    """The leading directions of the spread of the teacher's samples, in which distributions are compared.

    Args:
        views: the views of the teacher's samples, (n, d): features, or the samples' own values.
    """

    views: Tensor

    @cached_property
    def centre(self) -> Tensor:
        """Return the mean of the teacher's views, (d,)."""
        return self.views.double().mean(0)

    @cached_property
    def directions(self) -> Tensor:
        """Return the leading directions of the spread of the teacher's views, (d, k).

        They are few, because the samples are few.
        """
        spread = self.views.double() - self.centre
        values, vectors = torch.linalg.eigh(spread @ spread.T)
        count = max(1, min(DIRECTIONS, len(spread) // 8, int((values > 1e-9 * values[-1]).sum())))
        return (spread.T @ vectors[:, -count:]) / values[-count:].clamp(min=1e-30).sqrt()

    @cached_property
    def statistics(self) -> Statistics:
        """Return mean and covariance of the teacher's samples in those directions, (k,) and (k, k)."""
        return self.seen(self.views)

    @cached_property
    def variance(self) -> float:
        """Return the total variance of the teacher's samples in those directions."""
        return float(self.statistics.covariance.trace())

    def seen(self, views: Tensor) -> Statistics:
        """Return mean and covariance of any samples' views (n, d) in those directions, (k,) and (k, k)."""
        accumulator = Accumulator()
        accumulator.add((views.double() - self.centre) @ self.directions)
        return accumulator.statistics()

    def distance(self, views: Tensor) -> float:
        """Return the Fréchet distance of any samples' views (n, d) to the teacher's.

        It is infinite where a view is not finite.
        """
        return frechet_distance(self.seen(views), self.statistics) if bool(torch.isfinite(views).all()) else math.inf


@dataclass(frozen=True)
class PathEnds:
    """The ends of the teacher's path, with which a student's samples are compared.

    Args:
        ends: the ends of the teacher's path, y at t_min, (n, *shape).
        starts: the starts of the first of these paths, f(x_T, t_max), (m ≤ n, *shape) (Eq. 9).
        views: (n, d): what the middle of the teacher's network makes of the ends, or the ends' own values.
        textures: (n, c): what the network's last block makes of the ends; empty where it has none.
        middles: the y_t of the first of these paths half way between t_max and t_min, (m, *shape).
    """

    ends: Tensor
    starts: Tensor
    views: Tensor
    textures: Tensor
    middles: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def by_values(self) -> bool:
        """Whether distributions are compared by the samples' own values."""
        return torch.equal(self.views, self.ends.flatten(1))

    @cached_property
    def space(self) -> Space:
        """Return the space in which views are compared."""
        return Space(self.views)

    @cached_property
    def texture(self) -> Space | None:
        """Return the space in which textures are compared; None where there are no textures."""
        return Space(self.textures) if self.textures.numel() else None

    @cached_property
    def diversity(self) -> float:
        """Return the root mean square difference of two seeds' ends under one condition."""
        return diversity_of(self.ends)

    @cached_property
    def saturated(self) -> float:
        """Return the absolute value from which on a value counts as saturated."""
        values = self.ends.abs().flatten()
        return SATURATED * float(values.kthvalue(max(1, int(0.99 * len(values)))).values)


def mean_square(values: Tensor) -> float:
    """Return the mean square of all values, summed in float64."""
    return float(values.double().square().mean())


def diversity_of(samples: Tensor) -> float:
    """Return the root mean square difference of two seeds' samples under one condition, over all values.

    The first half of the samples (n, …) has the conditions of the second.
    """
    half = len(samples) // 2
    return math.sqrt(mean_square(samples[:half] - samples[half:]))


def channels(prefix: str, samples: Tensor, level: float) -> dict[str, list[float]]:
    """Return each channel's mean, deviation and saturated share, by name; samples without channels count as one."""
    values = samples.double().transpose(0, 1).flatten(1) if samples.ndim > 2 else samples.double().flatten()[None]
    return {
        f"{prefix}mean": values.mean(1).tolist(),
        f"{prefix}deviation": values.std(1).tolist(),
        f"{prefix}saturation": (values.abs() >= level).double().mean(1).tolist(),
    }


def colours(prefix: str, samples: Tensor) -> dict[str, float]:
    """Return the colour saturation of pictures (n, 3, h, w) by name; nothing for samples without three channels.

    It is the mean over pixels of the deviation of the three channels.
    """
    if samples.ndim != 4 or samples.shape[1] != 3:
        return {}
    return {f"{prefix}colour": float(samples.double().std(1).mean())}
