"""The conditions of samples, drawn for training and listed for sampling. No image of a data set is read here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.core.randomness import Draw, noises_of


class Conditions(Protocol):
    """Something that makes conditions, as a function of the draw or of the sample's number alone."""

    def draw(self, draw: Draw) -> Condition:
        """Return the conditions of a slice of a training batch, on the draw's device."""
        ...

    def listed(self, seed: int, start: int, stop: int) -> Condition:
        """Return the conditions of the samples ``start`` … ``stop − 1`` of a sampling run, in the order of the list.

        ``seed`` is that of the sampling run.
        """
        ...

    def modules(self) -> Sequence[nn.Module]:
        """Return the networks that are asked for conditions, to be moved to the training device."""
        ...


class Numbered(ABC):
    """The base of conditions that can be made for samples in any order, each by its number."""

    @abstractmethod
    def numbered(self, seed: int, numbers: Sequence[int]) -> Condition:
        """Return the conditions of the samples with these numbers of a sampling run, in their order."""

    def listed(self, seed: int, start: int, stop: int) -> Condition:
        """Return the conditions of the samples ``start`` … ``stop − 1`` of a sampling run, in the order of the list."""
        return self.numbered(seed, range(start, stop))


def numbered(conditions: Conditions, seed: int, numbers: Sequence[int]) -> Condition:
    """Return the conditions of the samples with these numbers, at least one; anyone's conditions are asked for each."""
    if isinstance(conditions, Numbered):
        return conditions.numbered(seed, numbers)
    return Condition.cat([conditions.listed(seed, number, number + 1) for number in numbers])


class NoModules(Numbered):
    """The base of conditions that ask no network."""

    def modules(self) -> Sequence[nn.Module]:
        """Return an empty sequence, because no network is asked."""
        return ()


class Unconditional(NoModules):
    """The conditions of samples that have none."""

    def draw(self, draw: Draw) -> Condition:
        """Return the empty condition."""
        return Condition()

    def numbered(self, seed: int, numbers: Sequence[int]) -> Condition:
        """Return the empty condition."""
        return Condition()


@dataclass(frozen=True)
class Classes(NoModules):
    """Class labels, drawn uniformly from ``labels``."""

    labels: Sequence[int]

    def __post_init__(self) -> None:
        if isinstance(self.labels, str) or not len(self.labels):
            raise BootdiffError(f"expected class labels such as [0, 3, 7], got {self.labels!r}.")

    def draw(self, draw: Draw) -> Condition:
        """Return drawn labels as the entry ``classes``, (b,) in int64."""
        return self._labels(draw.integers("class", len(self.labels)))

    def numbered(self, seed: int, numbers: Sequence[int]) -> Condition:
        """Return labels, one class after the other, as the entry ``classes``, (n,) in int64."""
        return self._labels(torch.tensor(list(numbers)) % len(self.labels))

    def _labels(self, numbers: Tensor) -> Condition:
        return Condition({"classes": _table(tuple(self.labels), numbers.device)[numbers]})


@lru_cache(maxsize=8)
def _table(labels: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the labels on a device, (n,) in int64; they are copied once, because each copy would make a GPU wait."""
    return torch.tensor(labels, device=device)


@dataclass(frozen=True)
class Prompts(Numbered):
    """Prompts, each visited once an epoch, in an order that depends on (seed, epoch) alone.

    Args:
        count: the number of prompts.
        rows: a function from the numbers of prompts to their conditions, which it reads from a cache or encodes now.
        encoders: the networks that ``rows`` asks; none where it reads a cache.
    """

    count: int
    rows: Callable[[Sequence[int]], Condition]
    encoders: Sequence[nn.Module] = ()

    def draw(self, draw: Draw) -> Condition:
        """Return the embeddings of the prompts whose turn it is, on the draw's device."""
        return self.rows(draw.visit(self.count).tolist()).to(draw.device)

    def numbered(self, seed: int, numbers: Sequence[int]) -> Condition:
        """Return the embeddings of prompts in the file's order, beginning anew at its end."""
        return self.rows([number % self.count for number in numbers])

    def modules(self) -> Sequence[nn.Module]:
        """Return the encoders that run within the training loop."""
        return self.encoders


@dataclass(frozen=True)
class Weighted(Numbered):
    """Conditions with a guidance weight: one, or drawn uniformly from a range for each sample.

    Args:
        lowest, highest: the ends of the range of weights; they are equal for one weight.
        shown: the guidance weight of listed samples; None draws one for each, as a function of the seed and its number.
    """

    inner: Conditions
    lowest: float
    highest: float
    shown: float | None

    def draw(self, draw: Draw) -> Condition:
        """Return the inner conditions with drawn weights as the further entry ``guidance``, (b,)."""
        weight = self.lowest + (self.highest - self.lowest) * draw.uniform("guidance")
        return self.inner.draw(draw).add(guidance=weight)

    def numbered(self, seed: int, numbers: Sequence[int]) -> Condition:
        """Return the inner conditions with the weights of listed samples as the further entry ``guidance``, (n,)."""
        if self.shown is None:
            share = torch.cat([Draw(seed, 0, "listed", n, n + 1, n + 1).uniform("guidance") for n in numbers])
            weight = self.lowest + (self.highest - self.lowest) * share
        else:
            weight = torch.full((len(numbers),), self.shown)
        return numbered(self.inner, seed, numbers).add(guidance=weight)

    def modules(self) -> Sequence[nn.Module]:
        """Return the networks that the inner conditions ask."""
        return self.inner.modules()


class Upscaler(Protocol):
    """The part of a super-resolution adapter that makes its condition."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (c, h, w) of one of its images."""
        ...

    def upscaled(self, images: Tensor, noise: Tensor, level: int | Tensor) -> Condition:
        """Return the condition that small images make, once they are enlarged and noised to a level."""
        ...


@dataclass(frozen=True)
class Cascade(Numbered):
    """Conditions of a super-resolution stage: its own, and the image of the distilled base stage.

    Args:
        inner: the stage's own conditions.
        base: the base stage's one-step student, called with (noise, condition).
        base_conditions: the base stage's conditions, for the same prompts in the same order.
        base_shape: the shape (c, h, w) of one image of the base stage.
        stage: the super-resolution stage's adapter, which enlarges and noises the base's images.
        level: the level of that noise, as a timestep of the stage's own noising scheduler.
    """

    inner: Conditions
    base: nn.Module
    base_conditions: Conditions
    base_shape: tuple[int, ...]
    stage: Upscaler
    level: int

    def draw(self, draw: Draw) -> Condition:
        """Return conditions with fresh base images, noised afresh."""
        condition = self.inner.draw(draw)
        small = self.base(draw.normal("base noise", self.base_shape), self.base_conditions.draw(draw))
        return self._with(condition, small, draw.normal("augmentation", self.stage.shape))

    def numbered(self, seed: int, numbers: Sequence[int]) -> Condition:
        """Return conditions with base images of the same seeds, as two stock pipelines in a row would make them."""
        device = next(self.base.parameters()).device
        condition = numbered(self.base_conditions, seed, numbers).to(device)
        small = self.base(noises_of(seed, numbers, self.base_shape).to(device), condition)
        noise = noises_of(seed, numbers, self.stage.shape, after=self.stage.shape).to(device)
        return self._with(numbered(self.inner, seed, numbers).to(device), small, noise)

    def _with(self, condition: Condition, small: Tensor, noise: Tensor) -> Condition:
        return condition.add(**self.stage.upscaled(small, noise, self.level))

    def modules(self) -> Sequence[nn.Module]:
        """Return the base stage's student, and the networks that both stages' conditions ask."""
        return (self.base, *self.inner.modules(), *self.base_conditions.modules())
