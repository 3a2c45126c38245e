"""The source of methods that read a data set: its images, with what is said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.core.randomness import Draw
from bootdiff.core.transfer import to_device
from bootdiff.data.pictures import to_unit
from bootdiff.data.sources.base import Ahead, Batch


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


class Values(Protocol):
    """Images, selected by their numbers: a tensor, or what is stored in a folder."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class Images(Ahead):
    """Images, in memory or stored, each visited once an epoch.

    Args:
        values: the images, (n, c, h, w): pixels in uint8, or latents in float32, which are used as they are.
        description: makes the condition of each image.
    """

    kind: ClassVar[str] = "images"
    data_free: ClassVar[bool] = False

    values: Values
    description: Description = field(default_factory=Undescribed)

    def modules(self) -> Sequence[nn.Module]:
        """Return an empty sequence, because no network is asked."""
        return ()

    def batch(self, draw: Draw) -> Batch:
        """Return images in [−1, 1], or latents, (b, c, h, w), with fresh noises and their conditions."""
        rows = draw.visit(len(self.values))
        values = to_device(self.values[rows], draw.device)  # pixels as bytes: a quarter of the way's load
        data = to_unit(values) if values.dtype == torch.uint8 else values
        return Batch(draw.normal("noise", data.shape[1:]), self.description.of(rows, draw), data)
