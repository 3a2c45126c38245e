"""What a training batch holds: pure noise, or images and noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.core.randomness import Draw
from bootdiff.core.transfer import to_device
from bootdiff.data.conditions import Conditions, Unconditional
from bootdiff.data.pictures import to_unit


@dataclass(frozen=True)
class Batch:
    """One slice of a batch.

    Args:
        noise: eps, (b, *shape).
        condition: what the samples are conditioned on.
        images: (b, *shape) in [−1, 1], for methods that read data; empty for data-free ones.
    """

    noise: Tensor
    condition: Condition = field(default_factory=Condition)
    images: Tensor = field(default_factory=lambda: torch.empty(0))


class Source(Protocol):
    """Makes batches; a function of the draw alone."""

    def batch(self, draw: Draw) -> Batch:
        """The slice of a batch that this draw stands for."""
        ...

    def modules(self) -> Sequence[nn.Module]:
        """Networks that it asks, to be moved to the training device."""
        ...


@dataclass(frozen=True)
class Noise:
    """Pure noise of the given shape, and what it is conditioned on: all that data-free methods read."""

    shape: tuple[int, ...]
    conditions: Conditions = field(default_factory=Unconditional)

    def batch(self, draw: Draw) -> Batch:
        """Fresh noises."""
        return Batch(draw.normal("noise", self.shape), self.conditions.draw(draw))

    def modules(self) -> Sequence[nn.Module]:
        """Those of the conditions."""
        return self.conditions.modules()


class Description(Protocol):
    """What is said of the images of a data set."""

    def of(self, rows: Tensor, draw: Draw) -> Condition:
        """The condition of the images ``rows``, (b,) in int64, on the draw's device."""
        ...


class Undescribed:
    """Nothing."""

    def of(self, rows: Tensor, draw: Draw) -> Condition:
        """The empty condition."""
        return Condition()


@dataclass(frozen=True)
class Images:
    """Images in memory, each visited once an epoch.

    Args:
        values: (n, c, h, w): pixels in uint8, or latents in float32 as they are.
        description: what each is conditioned on.
    """

    values: Tensor
    description: Description = field(default_factory=Undescribed)

    def modules(self) -> Sequence[nn.Module]:
        """None."""
        return ()

    def batch(self, draw: Draw) -> Batch:
        """Images in [−1, 1], or latents, with fresh noises."""
        rows = draw.visit(len(self.values))
        values = to_device(self.values[rows], draw.device)  # pixels as bytes: a quarter of the way's load
        images = to_unit(values) if values.dtype == torch.uint8 else values
        return Batch(draw.normal("noise", images.shape[1:]), self.description.of(rows, draw), images)
