"""The source of methods that learn the teacher's whole path: stored states of it at several times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from bootdiff.core.randomness import Draw
from bootdiff.data.sources.base import Batch
from bootdiff.data.sources.stored import Stored


@dataclass
class Trajectories(Stored):
    """Noises with the states y_t of their paths; the shards keep ``states``, (M, *shape) a sample.

    Args:
        times: the M times, which fall from t_max to t_min.
    """

    kind: ClassVar[str] = "trajectories"

    times: Sequence[float] = ()

    def __post_init__(self) -> None:
        self._times = torch.tensor(list(self.times))

    def batch(self, draw: Draw) -> Batch:
        """Return noises with the states of their paths (b, M, *shape), whose last are the samples (b, *shape)."""
        noise, condition, kept = self.drawn(draw)
        self._times = self._times.to(draw.device)  # copied to a GPU once
        states = kept["states"]
        return Batch(noise, condition, states[:, -1], states, self._times)
