"""What the sources of stored samples share: which of them a batch holds, and that each is made before it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Protocol

from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.core.randomness import Draw, noises_of, sample_noise
from bootdiff.core.transfer import to_device
from bootdiff.data.conditions import Conditions, Unconditional, numbered
from bootdiff.data.making import Maker
from bootdiff.data.shards import Shards


class Solving(Protocol):
    """Something that makes samples of noises; it has a device of its own, and takes and returns tensors of any."""

    def __call__(self, noise: Tensor, condition: Condition) -> Mapping[str, Tensor]:
        """Return what is kept of the samples with these noises (b, *shape): tensors (b, …), by name."""
        ...

    def modules(self) -> Sequence[nn.Module]:
        """Return the networks that are asked, to be moved to the training device."""
        ...


@dataclass
class Stored:
    """Samples that a teacher makes of noises, each visited once an epoch; in the first epoch in the order of numbers.

    So the first steps need only the first shards, and each is made before the step that reads it. The noise and the
    condition of a sample are functions of its number, and are not stored.

    Args:
        shards: where the samples are kept.
        solve: makes them of noises and conditions.
        seed: the seed of the noises, those of ``core.randomness.sample_noise``.
        at_once: how many noises are solved at a time.
        conditions: the samples' conditions, those that are listed for their numbers.
    """

    data_free: ClassVar[bool] = True

    shards: Shards
    solve: Solving
    seed: int
    at_once: int
    conditions: Conditions = field(default_factory=Unconditional)

    @property
    def count(self) -> int:
        """The number of stored samples."""
        return self.shards.manifest.count

    @cached_property
    def maker(self) -> Maker:
        """What makes missing shards."""
        return Maker(self.shards, self._make, self.at_once)

    def _make(self, start: int, stop: int) -> Mapping[str, Tensor]:
        noise = sample_noise(self.seed, start, stop, self.shards.manifest.shape)
        return self.solve(noise, self.conditions.listed(self.seed, start, stop))

    def ahead(self, step: int, batch_size: int) -> None:
        """Make the shards that a step reads and that are not there, with all processes.

        Raises:
            Interrupted: if the making is stopped; what is made so far stays.
        """
        first, stop = step * batch_size, (step + 1) * batch_size
        if stop <= self.count:
            self.maker.ensure(first, stop)
        else:  # a later epoch, which visits them in any order
            self.maker.ensure(0, self.count)

    def modules(self) -> Sequence[nn.Module]:
        """Return the networks that are asked for samples and for conditions."""
        return (*self.solve.modules(), *self.conditions.modules())

    def drawn(self, draw: Draw) -> tuple[Tensor, Condition, dict[str, Tensor]]:
        """Return the noises, conditions and stored tensors of the draw's samples, on its device."""
        numbers = draw.visit(self.count, ordered=True).tolist()
        noise = noises_of(self.seed, numbers, self.shards.manifest.shape)
        condition = numbered(self.conditions, self.seed, numbers)
        kept = {name: to_device(value, draw.device) for name, value in self.shards.rows(numbers).items()}
        return to_device(noise, draw.device), condition.to(draw.device), kept


def noises_hash(seed: int, shape: Sequence[int]) -> str:
    """Return a hash of the first few noises, by which another torch, which may draw others, is noticed."""
    values = sample_noise(seed, 0, 4, shape)
    return hashlib.blake2b(values.numpy().tobytes(), digest_size=8).hexdigest()
