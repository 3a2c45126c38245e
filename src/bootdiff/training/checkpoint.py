"""Checkpoints: safetensors and JSON, written aside and renamed, so that one is there whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bootdiff.errors import BootdiffError
from bootdiff.files import read_json, remove, remove_leftovers, write_json, write_whole

_NAME = re.compile(r"step-(\d+)")


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], keep_last: int
) -> Path:
    """Write ``folder/step-00001000`` with one safetensors file a name and ``state.json``; drop the oldest ones.

    Raises:
        BootdiffError: if the disk is full; earlier checkpoints are untouched.
    """

    def write(temporary: Path) -> None:
        temporary.mkdir()
        for name, values in tensors.items():
            save_tensors(temporary / f"{name}.safetensors", values)
        write_json(temporary / "state.json", {"step": step, **state})

    path = folder / f"step-{step:08d}"
    write_whole(path, write)
    for old in _checkpoints(folder)[:-keep_last]:
        remove(old)
    return path


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint, if there is one; leftovers of an interrupted write are removed."""
    if not folder.is_dir():
        return None
    remove_leftovers(folder)
    found = _checkpoints(folder)
    return found[-1] if found else None


def load_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """(tensors by file, state).

    Raises:
        BootdiffError: if a file is damaged.
    """
    tensors = {file.name.removesuffix(".safetensors"): load_tensors(file) for file in path.glob("*.safetensors")}
    return tensors, read_json(path / "state.json")


def save_tensors(path: Path, values: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors; copies, because the format refuses shared memory."""
    save_file({name: value.detach().cpu().contiguous().clone() for name, value in values.items()}, path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors.

    Raises:
        BootdiffError: if the file is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise BootdiffError(f"{path} cannot be read as safetensors ({error}); remove it or restore it.") from error


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if _NAME.fullmatch(p.name))
