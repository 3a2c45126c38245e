"""Samples that a run makes and keeps: a folder of safetensors shards, and a manifest of what they hold.

A shard has its place in the folder once it is whole (``storage/whole.py``). Its header says which manifest it belongs
to, which samples it holds and the hash of their values, so that a shard that is truncated, changed or of another making
is told from the right one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bootdiff.core.errors import BootdiffError, NonFiniteLossError, first_line
from bootdiff.storage.files import save_tensors, write_json, write_whole
from bootdiff.storage.reading import check_regular
from bootdiff.system.notes import note

#: the number of the shards' format
FORMAT = 1
#: the most samples of a shard, and the most values of one entry: so a shard of large samples, which take long to make,
#: has fewer of them, and little is lost with it
MOST_SAMPLES, MOST_VALUES = 512, 2**20
#: the fewest samples of a shard, unless they take more than the most bytes that it may have
FEWEST_SAMPLES, MOST_BYTES = 16, 64 * 2**20
MANIFEST = "manifest.json"
#: the word in a shard's header that says what it holds; it is the only one, because safetensors does not order several
HELD = "held"


@dataclass(frozen=True)
class Manifest:
    """What the shards of a folder hold, and how it was made.

    Args:
        what: what the samples are called in messages, such as ``"pairs"``.
        count: how many samples there are at the most.
        shape: the shape of one sample, without the batch.
        entries: the shape of each tensor that is kept of a sample, by name; all are in float32.
        made: everything else that the values depend on, such as the noises' seed, the solver and the teacher's hash.
    """

    what: str
    count: int
    shape: tuple[int, ...]
    entries: Mapping[str, tuple[int, ...]]
    made: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """A hash of all but the count: a sample depends on its own number, not on how many there are."""
        words = {**self.as_json, "samples": None}
        return hashlib.blake2b(json.dumps(words, sort_keys=True).encode(), digest_size=8).hexdigest()

    @property
    def as_json(self) -> dict[str, Any]:
        """The content of ``manifest.json``."""
        words = asdict(self)
        return {"format": FORMAT, "samples": [0, words.pop("count")], "shard": self.size, **words}

    @cached_property
    def size(self) -> int:
        """The number of samples in a shard; the last one may have fewer."""
        size = max(FEWEST_SAMPLES, min(MOST_SAMPLES, MOST_VALUES // math.prod(self.shape)))
        return max(1, min(size, MOST_BYTES // (4 * sum(math.prod(shape) for shape in self.entries.values()))))

    @property
    def shards(self) -> range:
        """The numbers of the shards."""
        return range(-(-self.count // self.size))

    def samples(self, shard: int) -> tuple[int, int]:
        """Return (first, stop) of the numbers of a shard's samples."""
        return shard * self.size, min(self.count, (shard + 1) * self.size)


class Shards:
    """The shards in a folder; those that were found whole are read as they are asked for, and fill no memory.

    Args:
        folder: the folder, which need not exist.
        manifest: what the shards should hold.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self._open: dict[int, Mapping[str, Tensor]] = {}
        self._begun = False

    def path(self, shard: int) -> Path:
        """Return the file of a shard."""
        return self.folder / f"{shard:05d}.safetensors"

    def ready(self, shards: Sequence[int]) -> bool:
        """Return whether all of these shards were found whole already."""
        return all(shard in self._open for shard in shards)

    def missing(self, shards: Sequence[int]) -> list[int]:
        """Return which of these shards must be made, after opening the others; what is wrong with some is a note."""
        wrong: dict[str, list[Path]] = {}
        for shard in shards:
            if shard not in self._open and self.path(shard).exists():
                try:
                    self._open[shard] = self._checked(shard)
                except _WrongShardError as error:
                    wrong.setdefault(str(error), []).append(self.path(shard))
        for why, paths in wrong.items():
            more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            note(f"{paths[0]}{more}: {why}; made again.")
        return [shard for shard in shards if shard not in self._open]

    def begin(self) -> None:
        """Write the manifest, for whoever looks into the folder; every shard says itself what it belongs to."""
        if not self._begun:
            write_json(self.folder / MANIFEST, {**self.manifest.as_json, "digest": self.manifest.digest})
        self._begun = True

    def write(self, shard: int, values: Mapping[str, Tensor]) -> None:
        """Write a shard.

        Raises:
            NonFiniteLossError: if a value is not finite.
            BootdiffError: if the disk refuses.
        """
        first, stop = self.manifest.samples(shard)
        if not all(bool(torch.isfinite(value).all()) for value in values.values()):
            raise NonFiniteLossError(
                f"the {self.manifest.what} {first} to {stop - 1} hold values that are not finite; load the teacher in "
                "float32, or lower its guidance."
            )
        words = {HELD: self._header(shard, values)}
        write_whole(self.path(shard), lambda temporary: save_tensors(temporary, values, words))

    def rows(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Return the tensors of the samples with these numbers, at least one: (n, …) each, on the CPU.

        Their shards must have been found whole before.
        """
        places = [divmod(number, self.manifest.size) for number in numbers]
        return {
            name: torch.stack([self._open[shard][name][row] for shard, row in places]) for name in self.manifest.entries
        }

    def _held(self, shard: int) -> str:
        """Return how a shard's header begins: the manifest that it belongs to, and its samples."""
        first, stop = self.manifest.samples(shard)
        return f"{self.manifest.digest} {first}-{stop}"

    def _header(self, shard: int, values: Mapping[str, Tensor]) -> str:
        """Return what a shard's header says: what it holds, and the hash of its values."""
        hashed = hashlib.blake2b(digest_size=8)
        for name in sorted(self.manifest.entries):
            hashed.update(values[name].detach().cpu().numpy().tobytes())
        return f"{self._held(shard)} {hashed.hexdigest()}"

    def _checked(self, shard: int) -> Mapping[str, Tensor]:
        """Return a shard's tensors, which the system reads from the file when they are looked at.

        Raises:
            _WrongShardError: if the shard is damaged or another one.
        """
        from safetensors import SafetensorError, safe_open

        path, manifest = self.path(shard), self.manifest
        first, stop = manifest.samples(shard)
        try:
            check_regular(path, "shard")
            with safe_open(path, "pt") as file:
                header = (file.metadata() or {}).get(HELD, "")
                if not f"{header} ".startswith(f"{self._held(shard)} "):
                    raise _WrongShardError(f"it holds other {manifest.what} than this run's")
                for name, shape in manifest.entries.items():
                    entry = file.get_slice(name)
                    if tuple(entry.get_shape()) != (stop - first, *shape) or entry.get_dtype() != "F32":
                        raise _WrongShardError(f"its {name} have another shape or type")
                values = {name: file.get_tensor(name) for name in manifest.entries}
        except (OSError, SafetensorError, BootdiffError) as error:
            raise _WrongShardError(f"it is damaged ({first_line(error)})") from error
        if header != self._header(shard, values):
            raise _WrongShardError("its values are not those that its header says")
        return values


class _WrongShardError(Exception):
    """A shard that cannot be used; the message says why, as the end of a sentence about it."""
