"""The contract that all samplers share: they take noises and conditions, and return samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.core.device import best_device
from bootdiff.core.errors import BootdiffError
from bootdiff.core.randomness import SampleNoise
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


class Noises(Protocol):
    """The noises of a batch of samples (``core.randomness.SampleNoise``)."""

    @property
    def eps(self) -> Tensor:
        """Return the starting noises, (b, *shape)."""
        ...

    def again(self, call: int) -> Tensor:
        """Return the fresh noises of call ``call``, (b, *shape); the calls after the first count from 1."""
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
    """Yield the starting noises of the samples 0 … num − 1 of ``seed``, in batches (b, *shape).

    Sample i does not depend on the batch size.
    """
    return (noise.eps for noise in all_noises(seed, num, shape, batch_size))


def all_noises(seed: int, num: int, shape: Sequence[int], batch_size: int, drawn: int = 1) -> Iterator[SampleNoise]:
    """Yield all noises of the samples 0 … num − 1 of ``seed``, in batches, on the best device.

    Args:
        drawn: the number of noises that a sample has drawn before its first call (``drawn_before``).
    """
    for start in range(0, num, batch_size):
        yield SampleNoise(seed, start, min(num, start + batch_size), tuple(shape), best_device(), drawn)


def drawn_before(adapter: Adapter | None) -> int:
    """Return how many noises a sample of this pipeline has drawn before its first call.

    A super-resolution stage has drawn two: the second is on the image that it enlarges.
    """
    return 2 if adapter is not None and adapter.upscales else 1


def fresh(noise: Tensor | Noises, call: int) -> Tensor:
    """Return the fresh noises of a call, (b, *shape); the calls after the first count from 1.

    Raises:
        BootdiffError: where there are starting noises alone.
    """
    if isinstance(noise, Tensor):
        raise BootdiffError(
            "several calls need fresh noise between them, got starting noises alone; give "
            "bootdiff.core.randomness.SampleNoise(seed, start, stop, shape)."
        )
    return noise.again(call)


def sampled(sample: Callable[[Any, Condition], Tensor], noise: Noises, condition: Condition) -> Tensor:
    """Return samples (b, *shape): a sampler that draws noise between its calls gets all noises, others the first."""
    return sample(noise if getattr(sample, "draws_noise", False) else noise.eps, condition)
