"""Checkpoints: safetensors and JSON, written aside and renamed, so that one is there whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from bootdiff.files import load_tensors, read_json, remove, remove_leftovers, save_tensors, write_json, write_whole

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
