"""What files say, but for the time that things took: so two runs of one command can be compared to the bit."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

#: what a file says of time, and of the hour at which it was written
TIMES = {"seconds", "images_per_second", "milliseconds"}
TIMED_COLUMNS = {"images_per_second", "milliseconds", "images/s", "ms, batch 1"}


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder with a hash of what it says, but for times."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): _hash(untimed(path)) for path in files}


def bits(folder: Path) -> dict[str, str]:
    """The same of what was computed alone: tensors, pixels, and logs."""
    readers = {".safetensors": Path.read_bytes, ".png": pixels, ".jsonl": untimed}
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in readers)
    return {str(path.relative_to(folder)): _hash(readers[path.suffix](path)) for path in files}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def unlike(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """The files that only one of two has, or that say something else."""
    return sorted(name for name in {**one, **other} if one.get(name) != other.get(name))


def pixels(path: Path) -> bytes:
    """A picture's, whichever way they are packed."""
    with Image.open(path) as picture:
        return f"{picture.mode} {picture.size} ".encode() + picture.tobytes()


def untimed(path: Path) -> bytes:
    """A file's bytes without what depends on how long something took."""
    if path.suffix == ".jsonl":
        return json.dumps([without_times(json.loads(line)) for line in path.read_text().splitlines()]).encode()
    if path.suffix == ".json":
        return json.dumps(without_times(json.loads(path.read_text()))).encode()
    if path.suffix in (".csv", ".md") and path.stem == "compare":
        return json.dumps(without_columns(path)).encode()
    return path.read_bytes()


def without_times(value: Any) -> Any:
    """A JSON value without the entries that are times."""
    if isinstance(value, dict):
        return {key: without_times(one) for key, one in value.items() if key not in TIMES}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def without_columns(path: Path) -> list[list[str]]:
    """A table's cells, but for the columns that are times."""
    text = path.read_text()
    if path.suffix == ".csv":
        lines = list(csv.reader(io.StringIO(text)))
    else:
        lines = [line.strip("| \n").split(" | ") for line in text.splitlines()]
    head = next(line for line in lines if "sampler" in line)
    timed = [number for number, name in enumerate(head) if name in TIMED_COLUMNS]
    return [[cell for i, cell in enumerate(line) if i not in timed or len(line) != len(head)] for line in lines]
