"""Sources of training batches: of pure noise, or of images and noise."""

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
    """One process's or accumulation step's slice of a training batch.

    Args:
        noise: the noises eps, (b, *shape).
        condition: the condition of the samples.
        images: images, (b, *shape) in [−1, 1], for methods that read data; empty for methods that read none.
    """

    noise: Tensor
    condition: Condition = field(default_factory=Condition)
    images: Tensor = field(default_factory=lambda: torch.empty(0))


class Source(Protocol):
    """Something that makes batches, as a function of the draw alone."""

    def batch(self, draw: Draw) -> Batch:
        """Return the slice of a batch that this draw stands for."""
        ...

    def modules(self) -> Sequence[nn.Module]:
        """Return the networks that are asked for batches, to be moved to the training device."""
        ...


@dataclass(frozen=True)
class Noise:
    """Pure noise of the given shape and the samples' conditions: all that data-free methods read."""

    shape: tuple[int, ...]
    conditions: Conditions = field(default_factory=Unconditional)

    def batch(self, draw: Draw) -> Batch:
        """Return fresh noises (b, *shape) with drawn conditions."""
        return Batch(draw.normal("noise", self.shape), self.conditions.draw(draw))

    def modules(self) -> Sequence[nn.Module]:
        """Return the networks that the conditions ask."""
        return self.conditions.modules()


class Description(Protocol):
    """Something that makes conditions of what is said of a data set's images."""

    def of(self, rows: Tensor, draw: Draw) -> Condition:
        """Return the condition of the images with the numbers ``rows``, (b,) in int64, on the draw's device."""
        ...


class Undescribed:
    """The description of images of which nothing is said."""

    def of(self, rows: Tensor, draw: Draw) -> Condition:
        """Return the empty condition."""
        return Condition()


@dataclass(frozen=True)
class Images:
    """Images in memory, each visited once an epoch.

    Args:
        values: the images, (n, c, h, w): pixels in uint8, or latents in float32, which are used as they are.
        description: makes the condition of each image.
    """

    values: Tensor
    description: Description = field(default_factory=Undescribed)

    def modules(self) -> Sequence[nn.Module]:
        """Return an empty sequence, because no network is asked."""
        return ()

    def batch(self, draw: Draw) -> Batch:
        """Return images in [−1, 1], or latents, (b, c, h, w), with fresh noises and their conditions."""
        rows = draw.visit(len(self.values))
        values = to_device(self.values[rows], draw.device)  # pixels as bytes: a quarter of the way's load
        images = to_unit(values) if values.dtype == torch.uint8 else values
        return Batch(draw.normal("noise", images.shape[1:]), self.description.of(rows, draw), images)
