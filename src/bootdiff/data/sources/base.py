"""What a batch holds, and what every source of batches offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.core.randomness import Draw


def _empty() -> Tensor:
    return torch.empty(0)


@dataclass(frozen=True)
class Batch:
    """One process's or accumulation step's slice of a training batch. What a source does not have is empty, (0,).

    Args:
        noise: the noises eps, (b, *shape).
        condition: the condition of the samples.
        data: the samples that belong to the noises, (b, *shape): a data set's images in [−1, 1] or latents, or the
            teacher's own samples: the ends of its paths, or a sampler's images.
        states: the states y_t of the teacher's path at M times, (b, M, *shape).
        times: these times, falling from t_max to t_min, (M,).
    """

    noise: Tensor
    condition: Condition = field(default_factory=Condition)
    data: Tensor = field(default_factory=_empty)
    states: Tensor = field(default_factory=_empty)
    times: Tensor = field(default_factory=_empty)


class Source(Protocol):
    """Something that makes batches, as a function of the draw alone."""

    @property
    def kind(self) -> str:
        """Return the word that asks for such a source: noise, pairs, trajectories or images."""
        ...

    @property
    def data_free(self) -> bool:
        """Return whether no image of a data set is read."""
        ...

    def ahead(self, step: int, batch_size: int) -> None:
        """Make sure that everything exists which a step's global batch of ``batch_size`` samples needs.

        Every process calls it before the step's first turn; where something is missing, all make it together.

        Raises:
            Interrupted: if the making is stopped; what is made so far stays.
        """
        ...

    def batch(self, draw: Draw) -> Batch:
        """Return the slice of a batch that this draw stands for."""
        ...

    def modules(self) -> Sequence[nn.Module]:
        """Return the networks that are asked for batches, to be moved to the training device."""
        ...


class Ahead:
    """The base of sources that have everything from the start."""

    def ahead(self, step: int, batch_size: int) -> None:
        """Do nothing, because nothing has to be made before a step."""
