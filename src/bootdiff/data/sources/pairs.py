"""The source of methods that learn the teacher's own samples: stored pairs of a noise and the sample made of it."""

from __future__ import annotations

from typing import ClassVar

from bootdiff.core.randomness import Draw
from bootdiff.data.sources.base import Batch
from bootdiff.data.sources.stored import Stored


class Pairs(Stored):
    """Noises with the samples that the teacher makes of them; the shards keep ``data``, (*shape) a sample."""

    kind: ClassVar[str] = "pairs"

    def batch(self, draw: Draw) -> Batch:
        """Return noises and the teacher's samples of them, (b, *shape) each, with their conditions."""
        noise, condition, kept = self.drawn(draw)
        return Batch(noise, condition, kept["data"])
