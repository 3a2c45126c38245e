"""Records: the figures of docs/results.md as files, each with the command that makes it again.

A record is one JSON file in ``docs/records``. Its values are tables: a list of rows, each a mapping from a column's
heading to a number or a word. ``python benchmarks/tables.py`` copies them into docs/results.md.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "records"
#: where a copy of the repository without its history says which commit it is (benchmarks/gpu/pack.sh writes it)
PACKED_COMMIT = ROOT / "benchmarks" / "gpu" / "packed" / "commit"
VERSIONS = ("torch", "diffusers", "transformers", "accelerate", "numpy")

Row = Mapping[str, Any]
Tables = Mapping[str, Sequence[Row]]


@dataclass(frozen=True)
class Record:
    """Measured figures and everything that is needed to measure them again.

    Args:
        command: makes the record again, from the repository's root.
        commit: of the code that was measured; ``+`` stands behind it where files had been changed since.
        machine: processor or GPU, and the number of cores.
        threads: of torch.
        seeds: of training and sampling, as the command's script uses them.
        date: ISO 8601, the day.
        versions: of the libraries.
        values: tables by name; a table is a list of rows.
    """

    command: str
    commit: str
    machine: str
    threads: int
    seeds: Sequence[int]
    date: str
    versions: Mapping[str, str]
    values: Tables


def new_record(values: Tables, seeds: Sequence[int] = (), command: str | None = None) -> Record:
    """A record of figures that were measured just now, on this machine.

    Args:
        command: by default, the running script with its arguments.
    """
    import torch

    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    typed = shlex.join(["python", _from_root(sys.argv[0]), *sys.argv[1:]])
    known = {name: _version(name) for name in VERSIONS}
    asked = command or typed
    return Record(asked, commit(), machine(), torch.get_num_threads(), tuple(seeds), today, known, values)


def write_record(path: Path, record: Record) -> None:
    """Write a record, aside and renamed: a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(asdict(record), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_record(path: Path) -> Record:
    """Read a record.

    Raises:
        ValueError: if the file holds no record; it names the file.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} holds no record ({error}); make it again by its command.") from error
    wrong = [field.name for field in fields(Record) if not _fits(values, field.name)]
    if wrong or values.keys() - {field.name for field in fields(Record)}:
        raise ValueError(f"{path} holds no record ({', '.join(wrong) or 'unknown entries'}); make it again.")
    return Record(**values)


def _fits(values: Any, name: str) -> bool:
    """Whether an entry of a record is there and of its kind."""
    kinds = {"threads": int, "seeds": list, "versions": dict, "values": dict}
    if not isinstance(values, dict) or not isinstance(values.get(name), kinds.get(name, str)):
        return False
    if name == "versions":
        return isinstance(values[name].get("torch"), str)
    tables = values[name].values() if name == "values" else ()
    return all(isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows) for rows in tables)


def commit() -> str:
    """The commit of this repository, short; with ``+`` where tracked files differ from it."""
    packed = PACKED_COMMIT.read_text(encoding="utf-8").strip() if PACKED_COMMIT.is_file() else "unknown"
    if not (ROOT / ".git").exists():
        return packed
    try:
        hash_ = _git("rev-parse", "--short=8", "HEAD")
        # A record that is being made again is no change of what it measures.
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs")
    except (OSError, subprocess.CalledProcessError):
        return packed
    return f"{hash_}+" if changed else hash_


def machine() -> str:
    """The GPU's name where there is one, else the processor's, and the number of cores."""
    import torch

    # Other instructions add in another order: a figure is the same to the last digit only with the same ones.
    cores = f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, {cores}"
    names = [line.partition(":")[2].strip() for line in _processor() if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {cores}"


def _processor() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _from_root(script: str) -> str:
    path = Path(script).resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def _git(*words: str) -> str:
    run = subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True)
    return run.stdout.strip()
