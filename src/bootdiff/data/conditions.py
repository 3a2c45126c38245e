"""What samples are conditioned on: drawn for training, listed for sampling. No images of a data set anywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.core.randomness import Draw, sample_noise


class Conditions(Protocol):
    """Makes conditions; a function of the draw, or of the sample's number, alone."""

    def draw(self, draw: Draw) -> Condition:
        """For a slice of a training batch, on its device."""
        ...

    def listed(self, seed: int, start: int, stop: int) -> Condition:
        """For the samples ``start`` … ``stop − 1`` of a sampling run with this seed, in the order of the list."""
        ...

    def modules(self) -> Sequence[nn.Module]:
        """Networks that it asks, to be moved to the training device."""
        ...


class NoModules:
    """A default for conditions that ask no network."""

    def modules(self) -> Sequence[nn.Module]:
        """None."""
        return ()


class Unconditional(NoModules):
    """Nothing."""

    def draw(self, draw: Draw) -> Condition:
        """The empty condition."""
        return Condition()

    def listed(self, seed: int, start: int, stop: int) -> Condition:
        """The empty condition."""
        return Condition()


@dataclass(frozen=True)
class Classes(NoModules):
    """Class labels, uniformly."""

    labels: Sequence[int]

    def draw(self, draw: Draw) -> Condition:
        """Labels, (b,) in int64."""
        return self._labels(draw.integers("class", len(self.labels)))

    def listed(self, seed: int, start: int, stop: int) -> Condition:
        """One class after the other."""
        return self._labels(torch.arange(start, stop) % len(self.labels))

    def _labels(self, numbers: Tensor) -> Condition:
        return Condition({"classes": _table(tuple(self.labels), numbers.device)[numbers]})


@lru_cache(maxsize=8)
def _table(labels: tuple[int, ...], device: torch.device) -> Tensor:
    """Labels on a device, (n,) in int64: copied once, because a copy at each step would make a GPU wait."""
    return torch.tensor(labels, device=device)


@dataclass(frozen=True)
class Prompts:
    """Prompts, each visited once an epoch, in an order that is a permutation of (seed, epoch).

    Args:
        count: how many there are.
        rows: the conditions of these prompts, by number: read from a cache, or encoded now.
        encoders: the networks behind ``rows``.
    """

    count: int
    rows: Callable[[Sequence[int]], Condition]
    encoders: Sequence[nn.Module] = ()

    def draw(self, draw: Draw) -> Condition:
        """Embeddings of the prompts whose turn it is."""
        return self.rows(draw.visit(self.count).tolist()).to(draw.device)

    def listed(self, seed: int, start: int, stop: int) -> Condition:
        """Embeddings in the file's order."""
        return self.rows([number % self.count for number in range(start, stop)])

    def modules(self) -> Sequence[nn.Module]:
        """The encoders that run in the loop."""
        return self.encoders


@dataclass(frozen=True)
class Weighted:
    """Conditions with a guidance weight: one, or drawn uniformly from a range for each sample.

    Args:
        lowest, highest: of the range; equal for one weight.
        shown: the weight of listed samples.
    """

    inner: Conditions
    lowest: float
    highest: float
    shown: float

    def draw(self, draw: Draw) -> Condition:
        """With the entry ``guidance``, (b,)."""
        weight = self.lowest + (self.highest - self.lowest) * draw.uniform("guidance")
        return self.inner.draw(draw).add(guidance=weight)

    def listed(self, seed: int, start: int, stop: int) -> Condition:
        """With the weight that is shown."""
        return self.inner.listed(seed, start, stop).add(guidance=torch.full((stop - start,), self.shown))

    def modules(self) -> Sequence[nn.Module]:
        """The inner conditions'."""
        return self.inner.modules()


class Upscaler(Protocol):
    """The part of a super-resolution adapter that makes its condition."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of its images."""
        ...

    def upscaled(self, images: Tensor, noise: Tensor, level: int | Tensor) -> Condition:
        """Small images enlarged and noised."""
        ...


@dataclass(frozen=True)
class Cascade:
    """What a super-resolution stage is conditioned on: its prompt, and the distilled base stage's image of it.

    Args:
        inner: the stage's own conditions.
        base: the base stage's one-step student; called with (noise, condition).
        base_conditions: for the same prompts in the same order.
        base_shape: of the base's images.
        stage: enlarges and noises them.
        level: of that noise, as a timestep of the stage's own noising scheduler.
    """

    inner: Conditions
    base: nn.Module
    base_conditions: Conditions
    base_shape: tuple[int, ...]
    stage: Upscaler
    level: int

    def draw(self, draw: Draw) -> Condition:
        """Fresh base images, noised afresh."""
        condition = self.inner.draw(draw)
        small = self.base(draw.normal("base noise", self.base_shape), self.base_conditions.draw(draw))
        return self._with(condition, small, draw.normal("augmentation", self.stage.shape))

    def listed(self, seed: int, start: int, stop: int) -> Condition:
        """Base images of the same seeds, as two stock pipelines in a row would make them."""
        device = next(self.base.parameters()).device
        condition = self.base_conditions.listed(seed, start, stop).to(device)
        small = self.base(sample_noise(seed, start, stop, self.base_shape).to(device), condition)
        noise = sample_noise(seed, start, stop, self.stage.shape, after=self.stage.shape).to(device)
        return self._with(self.inner.listed(seed, start, stop).to(device), small, noise)

    def _with(self, condition: Condition, small: Tensor, noise: Tensor) -> Condition:
        return condition.add(**self.stage.upscaled(small, noise, self.level))

    def modules(self) -> Sequence[nn.Module]:
        """The base, and whatever both stages' conditions ask."""
        return (self.base, *self.inner.modules(), *self.base_conditions.modules())
