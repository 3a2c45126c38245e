"""A cache of encoded prompts on disk: one ``.npy`` file for each entry of their condition, read row by row."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.storage.files import read_json, write_json, write_whole
from bootdiff.storage.whole import reserve

INDEX = "index.json"


def row_bytes(example: Condition) -> int:
    """Return how many bytes one prompt needs, given a condition of one prompt."""
    return sum(math.prod(value.shape[1:]) * value.element_size() for value in example.values())


def fits(folder: Path, needed: int, limit_gib: float) -> bool:
    """Return whether a cache of ``needed`` bytes may be made in a folder.

    It must stay below the limit in GiB, and leave half of the disk's free space.
    """
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return needed <= min(limit_gib * 2**30, shutil.disk_usage(there).free / 2)


def write_cache(folder: Path, count: int, batches: Iterable[Condition], digest: str) -> None:
    """Write the conditions of ``count`` prompts, given in order and in batches, to a folder: whole or not at all.

    Args:
        digest: a hash of the prompts and their encoders, by which a reader tells whether the cache is the right one.

    Raises:
        BootdiffError: if the disk is full; the first batch gives the files their whole size, so that this is told
            early.
    """

    def write(temporary: Path) -> None:
        temporary.mkdir()
        kinds: dict[str, str] = {}
        with ExitStack() as stack:
            files: dict[str, BinaryIO] = {}
            for batch in batches:
                for name, value in batch.items():
                    rows = _numpy(value)
                    if name not in files:
                        files[name] = stack.enter_context(_reserved(temporary / f"{name}.npy", rows, count))
                        kinds[name] = str(value.dtype).removeprefix("torch.")
                    # Written, not mapped: a full disk is an error here, and a signal that kills there.
                    files[name].write(rows.tobytes())
        write_json(temporary / INDEX, {"count": count, "digest": digest, "entries": kinds})

    write_whole(folder, write)


class PromptCache:
    """A cache of encoded prompts that ``write_cache`` made.

    Raises:
        BootdiffError: if the cache is damaged.
    """

    def __init__(self, folder: Path) -> None:
        words = read_json(folder / INDEX)
        try:
            self.count, self.digest, self.kinds = int(words["count"]), str(words["digest"]), dict(words["entries"])
            self.files = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in self.kinds}
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise BootdiffError(f"the prompt cache in {folder} is damaged ({error}); remove that folder.") from error

    def rows(self, numbers: Sequence[int]) -> Condition:
        """Return the condition of the prompts with these numbers, counted from 0."""
        return Condition({name: _tensor(file[list(numbers)], self.kinds[name]) for name, file in self.files.items()})


def _reserved(path: Path, rows: np.ndarray, count: int) -> BinaryIO:
    """Return a new ``.npy`` file for ``count`` rows, of its full size on the disk and open behind its header."""
    file = path.open("w+b")
    try:
        described = {"descr": np.lib.format.dtype_to_descr(rows.dtype), "fortran_order": False}
        np.lib.format.write_array_header_1_0(file, {**described, "shape": (count, *rows.shape[1:])})
        file.flush()
        reserve(file, file.tell() + count * rows[:1].nbytes)
    except BaseException:
        file.close()
        raise
    return file


def _numpy(value: Tensor) -> np.ndarray:
    value = value.detach().cpu().contiguous()
    # numpy knows no bfloat16: its bits are kept.
    return (value.view(torch.int16) if value.dtype == torch.bfloat16 else value).numpy()


def _tensor(rows: np.ndarray, kind: str) -> Tensor:
    value = torch.from_numpy(np.ascontiguousarray(rows))
    return value.view(torch.bfloat16) if kind == "bfloat16" else value
