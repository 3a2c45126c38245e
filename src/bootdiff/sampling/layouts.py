"""How a picture of samples is laid out: which noise and which condition each sample has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch

from bootdiff.core.condition import Condition
from bootdiff.core.device import best_device
from bootdiff.core.errors import BootdiffError
from bootdiff.core.randomness import SampleNoise
from bootdiff.data.conditions import Cascade, Conditions
from bootdiff.samplers.base import Noises, Sampler, all_noises, drawn_before

LARGEST_SEED = 2**62
#: batches of noises with their conditions
Work = Iterator[tuple[Noises, Condition]]


@dataclass(frozen=True)
class Canvas:
    """What every layout needs to know of the samples.

    Args:
        num, seed: the number of noises, and the seed of the first.
        named: the number of prompts or classes that the user named.
        size: the number of samples in a network call.
    """

    sampler: Sampler
    conditions: Conditions
    num: int
    seed: int
    named: int
    size: int

    def noise(self, seed: int, number: int) -> SampleNoise:
        """Return all noises of one sample of a seed."""
        shape, drawn = tuple(self.sampler.shape), drawn_before(self.sampler.adapter)
        return SampleNoise(seed, number, number + 1, shape, best_device(), drawn)


class Layout(Protocol):
    """A way to lay samples out in a picture."""

    #: how the named prompts or classes are arranged, in words
    order: str

    def shape(self, canvas: Canvas) -> tuple[int, int | None]:
        """Return how many samples there are, and the columns of their grid; None if any number will do."""
        ...

    def work(self, canvas: Canvas) -> Work:
        """Yield the batches of noises and conditions, in the order of the picture."""
        ...


@dataclass(frozen=True)
class Plain:
    """Samples one after the other, each with the next noise and the next condition."""

    order = "one after the other"

    def shape(self, canvas: Canvas) -> tuple[int, int | None]:
        """Return the number of samples that was asked for; their grid may have any number of columns."""
        return canvas.num, None

    def work(self, canvas: Canvas) -> Work:
        """Yield noises and conditions in batches; sample i has the noise of seed + i."""
        drawn = drawn_before(canvas.sampler.adapter)
        for noise in all_noises(canvas.seed, canvas.num, canvas.sampler.shape, canvas.size, drawn):
            yield noise, canvas.conditions.listed(canvas.seed, noise.start, noise.stop)


@dataclass(frozen=True)
class Interpolation:
    """A row of images from the noise of one seed to that of another, for every condition (the paper's Fig. 9).

    Args:
        linear: whether to go along a line instead of the sphere near which noises lie.
    """

    seeds: tuple[int, int]
    linear: bool = False
    order = "rows"

    def shape(self, canvas: Canvas) -> tuple[int, int | None]:
        """Return the number of samples and of columns; each condition has a row."""
        if isinstance(canvas.conditions, Cascade):
            raise BootdiffError("--interpolate is for one student; a cascade's second stage has a noise of its own.")
        return max(1, canvas.named) * canvas.num, canvas.num

    def work(self, canvas: Canvas) -> Work:
        """Yield noises and conditions in batches, one condition's row after the other."""
        first, last = (canvas.noise(seed, 0) for seed in self.seeds)
        shares = torch.linspace(0, 1, canvas.num).view(-1, *[1] * len(canvas.sampler.shape))
        for row in range(max(1, canvas.named)):
            condition = canvas.conditions.listed(canvas.seed, row, row + 1)
            for part in shares.split(canvas.size):
                yield Between(first, last, part, self.linear), Condition.cat([condition] * len(part))


@dataclass(frozen=True)
class Between:
    """The noises between those of two samples: the starting ones and, in the same way, the fresh ones.

    Args:
        first, last: the noises of the two samples.
        shares: the shares of the way from the first to the last, (n, 1, …) in [0, 1].
        linear: whether to go along a line instead of the sphere near which noises lie.
    """

    first: SampleNoise
    last: SampleNoise
    shares: torch.Tensor
    linear: bool

    @property
    def eps(self) -> torch.Tensor:
        """Return the starting noises, (n, *shape)."""
        return self._between(self.first.eps, self.last.eps)

    def again(self, call: int) -> torch.Tensor:
        """Return the fresh noises of call ``call``, (n, *shape)."""
        return self._between(self.first.again(call), self.last.again(call))

    def _between(self, first: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        return interpolated(first.cpu(), last.cpu(), self.shares, self.linear).to(first.device)


@dataclass(frozen=True)
class Swap:
    """A grid in which each noise has a row and each prompt a column (the paper's Fig. 10)."""

    order = "columns"

    def shape(self, canvas: Canvas) -> tuple[int, int | None]:
        """Return the number of samples and of columns; each prompt has a column."""
        return canvas.named * canvas.num, canvas.named

    def work(self, canvas: Canvas) -> Work:
        """Yield noises and conditions one at a time, because a cascade's base image depends on noise and prompt.

        Entry ``column`` of a list that begins ``column`` seeds earlier has the row's own seed.
        """
        for row in range(canvas.num):
            noise = canvas.noise(canvas.seed, row)
            for column in range(canvas.named):
                yield noise, canvas.conditions.listed(canvas.seed + row - column, column, column + 1)


def layout_of(swap: bool, interpolate: tuple[int, int] | None, linear: bool, times: str | None) -> Layout:
    """Return the layout that the options ask for.

    Raises:
        BootdiffError: if options mean nothing together; the message names them.
    """
    asked = [word for word, given in (("--swap", swap), ("--interpolate", interpolate), ("--times", times)) if given]
    if len(asked) > 1:
        raise BootdiffError(f"{' and '.join(asked)} each lay the picture out; give one of them.")
    if linear and interpolate is None:
        raise BootdiffError("--linear says how to --interpolate SEED SEED; give both.")
    if interpolate is None:
        return Swap() if swap else Plain()
    if not all(0 <= seed <= LARGEST_SEED for seed in interpolate):
        raise BootdiffError(f"--interpolate expects two seeds from 0 to {LARGEST_SEED}, got {interpolate}.")
    return Interpolation(interpolate, linear)


def interpolated(first: torch.Tensor, last: torch.Tensor, shares: torch.Tensor, linear: bool) -> torch.Tensor:
    """Return noises between two, (n, *shape): on a line, or on the sphere near which noises of many values lie.

    Args:
        first, last: the two noises, (1, *shape).
        shares: the shares of the way from the first to the last, (n, 1, …) in [0, 1].
    """
    if linear:
        return first + shares * (last - first)
    cosine = torch.nn.functional.cosine_similarity(first.flatten(), last.flatten(), dim=0).clamp(-1, 1)
    angle = torch.arccos(cosine)
    if angle < 1e-4:  # the same noise
        return first + shares * (last - first)
    return (torch.sin((1 - shares) * angle) * first + torch.sin(shares * angle) * last) / torch.sin(angle)
