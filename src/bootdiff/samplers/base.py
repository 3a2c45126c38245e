"""The contract that all samplers share: they take noises and conditions, and return samples in one network call."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.core.device import best_device
from bootdiff.core.randomness import sample_noise
from bootdiff.teachers.adapters.base import Adapter
from bootdiff.teachers.base import NO_CONDITION


class Told(Protocol):
    """Something that is told a condition; its pipeline says what that condition must hold."""

    @property
    def adapter(self) -> Adapter | None:
        """Return the adapter of the pipeline that it belongs to; None if it belongs to no pipeline."""
        ...

    def told_weight(self, weight: float | None) -> float | None:
        """Return the guidance weight that its condition must hold; None where the condition holds none.

        ``weight`` is the one that the user asked for, if any.
        """
        ...


class Sampler(Told, Protocol):
    """Makes samples from starting noises, on the noises' own device."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one sample, without the batch."""
        ...

    def __call__(self, eps: Tensor, condition: Condition = NO_CONDITION) -> Tensor: ...


def batch_for(shape: Sequence[int]) -> int:
    """Return how many samples of this shape a network may be given at a time: 512 at most.

    On a GPU these are 512 samples of 1,024 values, or 32 of Stable Diffusion's latents. On a CPU they are 128 and 8,
    because larger batches, which guidance doubles, do not fit into its caches.
    """
    values = 2**17 if best_device().type == "cpu" else 2**19
    return max(1, min(512, values // math.prod(shape)))


def noise_batches(seed: int, num: int, shape: Sequence[int], batch_size: int) -> Iterator[Tensor]:
    """Yield the noises of the samples 0 … num − 1 of ``seed``, in batches (b, *shape).

    Sample i does not depend on the batch size.
    """
    for start in range(0, num, batch_size):
        yield sample_noise(seed, start, min(num, start + batch_size), shape).to(best_device())
