"""Samplers under one contract: noises and conditions in, samples out, in one network call."""

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
    """Something that is told a condition, of which its pipeline says what it must hold."""

    @property
    def adapter(self) -> Adapter | None:
        """Of the pipeline that it belongs to, if it belongs to one."""
        ...

    def told_weight(self, weight: float | None) -> float | None:
        """The guidance weight that its condition must hold; None where it holds none."""
        ...


class Sampler(Told, Protocol):
    """Makes samples from starting noises, on the noises' own device."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample, without the batch."""
        ...

    def __call__(self, eps: Tensor, condition: Condition = NO_CONDITION) -> Tensor: ...


def batch_for(shape: Sequence[int]) -> int:
    """Samples of this shape that a network may be given at a time, 512 at most.

    512 of 1,024 values, 32 of Stable Diffusion's; on a CPU 128 and 8: larger ones, which guidance doubles, do not fit
    into its caches.
    """
    values = 2**17 if best_device().type == "cpu" else 2**19
    return max(1, min(512, values // math.prod(shape)))


def noise_batches(seed: int, num: int, shape: Sequence[int], batch_size: int) -> Iterator[Tensor]:
    """The noises of the samples 0 … num − 1 of ``seed``, in batches; sample i does not depend on the batch size."""
    for start in range(0, num, batch_size):
        yield sample_noise(seed, start, min(num, start + batch_size), shape).to(best_device())
