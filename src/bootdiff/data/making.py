"""Making stored samples ahead of their use: all processes together, a shard each, until nothing is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from bootdiff.core.errors import BootdiffError, Interrupted
from bootdiff.data.shards import Shards
from bootdiff.system.processes import gathered, place, word_of_first
from bootdiff.system.progress import Progress, is_first_process, progress
from bootdiff.system.signals import Asked

#: a function that makes the samples ``start`` … ``stop − 1``: tensors (stop − start, …) by name
Make = Callable[[int, int], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Maker:
    """Makes shards that are missing. A value depends neither on who makes it nor on how many processes there are.

    Args:
        shards: where they are kept.
        make: makes a few samples.
        at_once: how many samples it may be asked for at a time.
    """

    shards: Shards
    make: Make
    at_once: int

    def ensure(self, first: int, stop: int) -> None:
        """Make what is missing of the samples ``first`` … ``stop − 1``; every process must call it.

        Raises:
            Interrupted: on every process, if one was asked to end; the shards that are made stay.
            BootdiffError: if a shard cannot be written, or a process does not see what another has made.
        """
        shards, manifest = self.shards, self.shards.manifest
        needed = range(first // manifest.size, -(-stop // manifest.size))
        if shards.ready(needed):
            return
        # The first one's word: processes that see the disk at different moments must not do different things.
        missing = word_of_first(shards.missing(needed))
        if missing:
            self._make(missing)
        blind = [number for number, lacks in enumerate(gathered(bool(shards.missing(needed)))) if lacks]
        if blind:
            raise BootdiffError(
                f"process {blind[0]} does not see all {manifest.what} in {shards.folder}; expected an --output folder "
                "that all processes share."
            )

    def _make(self, missing: Sequence[int]) -> None:
        manifest, (own, count) = self.shards.manifest, place()
        if own == 0:
            self.shards.begin()
        done = manifest.samples(missing[0])[0]
        with (
            Asked().listening() as asked,
            progress(f"making {manifest.what}", manifest.count, done, is_first_process()) as bar,
        ):
            for start in range(0, len(missing), count):
                together = missing[start : start + count]
                before = bar.done
                if own < len(together):
                    asked.unless_asked(partial(self._write, together[own], bar, len(together)))
                if any(gathered(asked.to_end)):
                    raise Interrupted(
                        f"stopped while {manifest.what} were made; those in {self.shards.folder} stay, and the same "
                        "command goes on with the next."
                    )
                made = sum(stop - first for first, stop in map(manifest.samples, together))
                if bar.done != before + made:  # shards of other sizes, or none of its own
                    bar.advance(before + made - bar.done)

    @torch.no_grad()
    def _write(self, shard: int, bar: Progress, side: int) -> None:
        """Make and write a shard, while so many processes side by side make one each."""
        first, stop = self.shards.manifest.samples(shard)
        parts = []
        for start in range(first, stop, self.at_once):
            made = self.make(start, min(stop, start + self.at_once))
            parts.append({name: value.float().cpu() for name, value in made.items()})
            bar.advance(side * (min(stop, start + self.at_once) - start))
        self.shards.write(shard, {name: torch.cat([part[name] for part in parts]) for name in parts[0]})
