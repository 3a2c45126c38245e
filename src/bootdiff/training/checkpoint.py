"""Checkpoints, which are safetensors and JSON files in a folder.

They are written aside, read back and renamed, so a checkpoint is there whole or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bootdiff.core.errors import BootdiffError, shown
from bootdiff.storage.files import (
    load_tensors,
    read_json,
    remove,
    remove_leftovers,
    save_tensors,
    write_json,
    write_whole,
)
from bootdiff.storage.reading import check_kinds

_NAME = re.compile(r"step-(\d+)")


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], keep_last: int
) -> Path:
    """Write the checkpoint ``folder/step-00001000``, return its path, and drop the oldest checkpoints.

    The checkpoint holds one safetensors file for each name in ``tensors``, and ``state.json``.

    It gets its name, and earlier ones are dropped, only after it was opened and found to hold what was to be written.

    Raises:
        BootdiffError: if the disk is full, or gives back something else; earlier checkpoints are then untouched.
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
    """Remove all checkpoints but the newest ``keep_last``.

    The newest must have been read before: after a save, or after a run was resumed from it.
    """
    for old in _checkpoints(folder)[:-keep_last]:
        remove(old)


def _read_back(there: Path, path: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Compare a checkpoint with what it was written from, a file at a time.

    Raises:
        BootdiffError: if anything differs or cannot be read.
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
    """Return whether two tensors are equal bit for bit, so that values that are no number equal themselves."""
    other = other.detach().cpu().contiguous()
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8)))


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint, or None; leftovers of an interrupted write are removed."""
    if not folder.is_dir():
        return None
    remove_leftovers(folder)
    found = _checkpoints(folder)
    return found[-1] if found else None


def checkpoint_before(path: Path) -> Path | None:
    """Return the whole checkpoint before this one; None if there is none."""
    earlier = [other for other in _checkpoints(path.parent) if other < path]
    return earlier[-1] if earlier else None


def load_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read a checkpoint, and return its tensors by file and its state.

    Raises:
        BootdiffError: if a file is damaged, or the state belongs to another step than the folder's name says.
    """
    tensors = {file.name.removesuffix(".safetensors"): load_tensors(file) for file in path.glob("*.safetensors")}
    state = read_json(path / "state.json")
    check_state(state, step=int, seconds=int | float, learners=dict, scaler=dict | None)
    if state["step"] != int(path.name.removeprefix("step-")):
        raise BootdiffError(f"state.json is of step {shown(state['step'])}")
    return tensors, state


def check_state(words: Mapping[str, Any], **kinds: Any) -> None:
    """Refuse a part of the state in which an entry is missing, negative, or of another kind than we write.

    Raises:
        BootdiffError: if an entry is wrong; the message names it.
    """
    check_kinds(words, Path("state.json"), "remove the checkpoint", **kinds)
    for name in kinds:
        if isinstance(words[name], int | float) and words[name] < 0:
            raise BootdiffError(f"state.json: '{name}' cannot be {shown(words[name])}")


def check_tensors(file: str, found: Mapping[str, Tensor], places: Mapping[str, Tensor]) -> None:
    """Refuse tensors that do not have the names, shapes and kinds of those whose places they take.

    They may not hold values that are no finite numbers either, unless the other tensor does, as a mask may.

    Raises:
        BootdiffError: if a tensor does not fit; the message names the file and the tensor.
    """
    if odd := sorted(found.keys() ^ places.keys()):
        raise BootdiffError(f"{file} {'should not hold' if odd[0] in found else 'lacks'} {shown(odd[0])}")
    for name, place in places.items():
        tensor, what = found[name], f"{file}: {shown(name)}"
        if tensor.shape != place.shape:
            raise BootdiffError(f"{what} has the shape {[*tensor.shape]}, expected {[*place.shape]}")
        if tensor.is_floating_point() != place.is_floating_point():
            raise BootdiffError(f"{what} is of {tensor.dtype}, expected {place.dtype}")
        if not tensor.isfinite().all() and place.isfinite().all():
            raise BootdiffError(f"{what} holds what is no finite number")


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if _NAME.fullmatch(p.name))
