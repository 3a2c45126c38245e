"""Random values as a function of (seed, step, turn, sample), without any state that a run would have to keep.

A draw does not depend on how many processes there are, on how a batch is split for gradient accumulation, or on what
was drawn before. So a resumed run needs no random state, and one process or four give the same student.

A ``Draw`` comes from the device's own generator, seeded for each block of samples: nothing is copied to a GPU, and
nothing waits for it. On one kind of device a value is a function of (seed, step, turn, name, sample) alone. A CPU and a
GPU have different generators, so that a run of one seed differs between them, as it may between versions of torch. Two
things are drawn on the CPU and are the same everywhere: the order in which an epoch visits prompts or images
(``visit``), and the noises of samples (``sample_noise``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from bootdiff.core.errors import BootdiffError

# One generator serves a block of samples: seeding costs as much as drawing a few hundred values.
BLOCK = 16


def _key(*words: object) -> int:
    """Return a 63-bit seed that depends on every word."""
    digest = hashlib.blake2b("\x1f".join(map(str, words)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@dataclass(frozen=True)
class Draw:
    """Random values for the samples ``start`` … ``stop − 1`` of one global batch.

    Values of different ``name`` are independent. A process or an accumulation step draws its own slice only;
    ``batch_size`` is the global one.
    """

    seed: int
    step: int
    turn: str
    start: int
    stop: int
    batch_size: int
    device: torch.device | str = "cpu"

    def __len__(self) -> int:
        return self.stop - self.start

    def normal(self, name: str, shape: Sequence[int]) -> Tensor:
        """Return standard normal values, (len(self), *shape) in float32, independent for every ``name``."""
        return self._blocks(name, lambda g: torch.randn(BLOCK, *shape, generator=g, device=self.device))

    def uniform(self, name: str) -> Tensor:
        """Return uniform values in [0, 1), (len(self),) in float32."""
        return self._blocks(name, lambda g: torch.rand(BLOCK, generator=g, device=self.device))

    def integers(self, name: str, high: int) -> Tensor:
        """Return uniform integers in [0, high), (len(self),) in int64."""
        return self._blocks(name, lambda g: torch.randint(high, (BLOCK,), generator=g, device=self.device))

    def visit(self, count: int, ordered: bool = False) -> Tensor:
        """Return which of ``count`` items these samples use, (len(self),) in int64; each epoch is a new permutation.

        Args:
            ordered: whether the first epoch visits the items in their own order, so that they can be made on the way.
        """
        first = self.step * self.batch_size
        here, stop, parts = first + self.start, first + self.stop, []
        while here < stop:  # a batch may reach into the next epoch, or over several
            epoch, place = divmod(here, count)
            if ordered and epoch == 0:
                parts.append(torch.arange(place, min(count, place + stop - here)))
            else:
                parts.append(_epoch_order(self.seed, epoch, count)[place : place + stop - here])
            here += len(parts[-1])
        return torch.cat(parts)

    def _blocks(self, name: str, draw_block) -> Tensor:
        generator = torch.Generator(self.device)
        first, last = self.start // BLOCK, -(-self.stop // BLOCK)
        parts = []
        for block in range(first, last):
            generator.manual_seed(_key(self.seed, self.step, self.turn, name, block))
            parts.append(draw_block(generator))
        offset = self.start - first * BLOCK
        return torch.cat(parts)[offset : offset + len(self)]


def stored_seed(seed: int) -> int:
    """Return the noises' seed of samples that a training run stores, as a function of the run's seed.

    From 2^31 to 2^31 + 2^29, where neither a user's samples begin nor those of a look: what a student is measured on
    is none of what it learned.
    """
    return 2**31 + _key(seed, "stored") % 2**29


@lru_cache(maxsize=4)
def _epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    """Return the order in which epoch ``epoch`` visits ``count`` items: a permutation, (count,) in int64."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(_key(seed, "epoch", epoch)))


def sample_noise(seed: int, start: int, stop: int, shape: Sequence[int], after: Sequence[int] | None = None) -> Tensor:
    """Return the starting noises of the samples ``start`` … ``stop − 1`` of a sampling run, (stop − start, *shape).

    Sample i is drawn with ``torch.Generator("cpu").manual_seed(seed + i)``, diffusers' own convention, so a stock
    pipeline that is given the same generators starts from the same noise. Such a generator reads the lowest 32 bits
    of its seed only: seeds that differ by 2^32 are one.

    Args:
        after: the shape of what each generator has drawn before, such as the first of two noises; None for nothing.

    Raises:
        BootdiffError: if there is no sample from ``start`` to ``stop``.
    """
    if start >= stop:
        raise BootdiffError(f"expected start below stop, got samples {start} to {stop}.")
    return noises_of(seed, range(start, stop), shape, after)


def noises_of(seed: int, numbers: Iterable[int], shape: Sequence[int], after: Sequence[int] | None = None) -> Tensor:
    """Return the starting noises of the samples with these numbers, at least one, in their order: (n, *shape).

    They are those of ``sample_noise``, which says what ``after`` is.
    """

    def one(number: int) -> Tensor:
        generator = torch.Generator("cpu").manual_seed(seed + number)
        if after is not None:
            torch.randn(*after, generator=generator)
        return torch.randn(*shape, generator=generator)

    return torch.stack([one(number) for number in numbers])


@dataclass(frozen=True)
class SampleNoise:
    """All noises of some samples of a sampling run: those that they start from, and fresh ones for later calls.

    Sample i has one generator, that of ``sample_noise``; its starting noise is the first that is drawn, and the fresh
    noise of call k is the k-th after that. So stock pipelines, which go on with the generators that they were given,
    draw the same noises; and a sample's noises depend on neither the batch nor the process that it is in.

    Args:
        seed: the seed of the sampling run.
        start, stop: the samples ``start`` … ``stop − 1``.
        shape: the shape of one sample, without the batch.
        device: where the noises are put; they are drawn on the CPU.
        drawn: how many noises of this shape each generator has drawn before the first call: the starting one, and for
            a super-resolution stage the one on the images that it enlarges.
    """

    seed: int
    start: int
    stop: int
    shape: tuple[int, ...]
    device: torch.device | str = "cpu"
    drawn: int = 1

    def __len__(self) -> int:
        return self.stop - self.start

    @cached_property
    def eps(self) -> Tensor:
        """The starting noises, (stop − start, *shape)."""
        return sample_noise(self.seed, self.start, self.stop, self.shape).to(self.device)

    def again(self, call: int) -> Tensor:
        """Return the fresh noises of call ``call``, (stop − start, *shape); the calls after the first count from 1."""

        def one(number: int) -> Tensor:
            generator = torch.Generator("cpu").manual_seed(self.seed + number)
            for _ in range(self.drawn + call - 1):  # at once they would be other values: torch draws by 16
                torch.randn(*self.shape, generator=generator)
            return torch.randn(*self.shape, generator=generator)

        return torch.stack([one(number) for number in range(self.start, self.stop)]).to(self.device)

    def first(self, num: int) -> SampleNoise:
        """Return the noises of the first ``num`` samples only."""
        return replace(self, stop=min(self.stop, self.start + num))
