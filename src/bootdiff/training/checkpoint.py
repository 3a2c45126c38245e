"""Checkpoints: safetensors and JSON, written aside, read back and renamed: one is there whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bootdiff.errors import BootdiffError
from bootdiff.files import load_tensors, read_json, remove, remove_leftovers, save_tensors, write_json, write_whole

_NAME = re.compile(r"step-(\d+)")


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], keep_last: int
) -> Path:
    """Write ``folder/step-00001000`` with one safetensors file a name and ``state.json``; drop the oldest ones.

    It gets its name, and earlier ones may go, only after it was opened and found to hold what was to be written.

    Raises:
        BootdiffError: if the disk is full, or gives back something else; earlier checkpoints are untouched.
    """

    def write(temporary: Path) -> None:
        temporary.mkdir()
        for name, values in tensors.items():
            save_tensors(temporary / f"{name}.safetensors", values)
        write_json(temporary / "state.json", {"step": step, **state})
        _read_back(temporary, path, step, tensors)

    path = folder / f"step-{step:08d}"
    write_whole(path, write)
    drop_old_checkpoints(folder, keep_last)
    return path


def drop_old_checkpoints(folder: Path, keep_last: int) -> None:
    """Remove all but the newest, which must have been read: after a save, or after a run was resumed from it."""
    for old in _checkpoints(folder)[:-keep_last]:
        remove(old)


def _read_back(there: Path, path: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Compare a checkpoint with what it was written from, a file at a time.

    Raises:
        BootdiffError: if anything differs, or cannot be read.
    """
    try:
        for name, values in tensors.items():
            found = load_tensors(there / f"{name}.safetensors")
            if found.keys() != values.keys() or not all(_same(found[key], values[key]) for key in values):
                raise BootdiffError(f"{name}.safetensors holds something else")
        if read_json(there / "state.json").get("step") != step:
            raise BootdiffError("state.json holds something else")
    except BootdiffError as error:
        why = str(error).replace(str(there), path.name)
        raise BootdiffError(
            f"the checkpoint {path} was written and could not be read back ({why.split(';')[0]:.150}); the ones before "
            "it are kept. Look at the disk, then run the same command."
        ) from error


def _same(one: Tensor, other: Tensor) -> bool:
    """Bit for bit, so that what is no number equals itself."""
    other = other.detach().cpu().contiguous()
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8)))


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint, if there is one; leftovers of an interrupted write are removed."""
    if not folder.is_dir():
        return None
    remove_leftovers(folder)
    found = _checkpoints(folder)
    return found[-1] if found else None


def checkpoint_before(path: Path) -> Path | None:
    """The whole checkpoint before this one, if there is one."""
    earlier = [other for other in _checkpoints(path.parent) if other < path]
    return earlier[-1] if earlier else None


def load_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """(tensors by file, state).

    Raises:
        BootdiffError: if a file is damaged.
    """
    tensors = {file.name.removesuffix(".safetensors"): load_tensors(file) for file in path.glob("*.safetensors")}
    return tensors, read_json(path / "state.json")


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if _NAME.fullmatch(p.name))
