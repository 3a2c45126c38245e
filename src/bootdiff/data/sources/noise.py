"""The source of methods that need nothing but noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from bootdiff.core.randomness import Draw
from bootdiff.data.conditions import Conditions, Unconditional
from bootdiff.data.sources.base import Ahead, Batch


@dataclass(frozen=True)
class Noise(Ahead):
    """Pure noise of the given shape and the samples' conditions: all that data-free methods read."""

    kind: ClassVar[str] = "noise"
    data_free: ClassVar[bool] = True

    shape: tuple[int, ...]
    conditions: Conditions = field(default_factory=Unconditional)

    def batch(self, draw: Draw) -> Batch:
        """Return fresh noises (b, *shape) with drawn conditions."""
        return Batch(draw.normal("noise", self.shape), self.conditions.draw(draw))

    def modules(self) -> Sequence[nn.Module]:
        """Return the networks that the conditions ask."""
        return self.conditions.modules()
