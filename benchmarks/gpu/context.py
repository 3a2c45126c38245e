"""What a stage is given, and what it hands back: tables that are on disk as soon as they are known."""

from __future__ import annotations

import json
import os
import signal
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from records import Row, new_record, write_record

HERE = Path(__file__).resolve().parent
#: what ``pack.sh`` gathered
PACKED = HERE / "packed"
#: the table that says of a record that its stage did not come to its end
UNFINISHED = "unfinished"
#: of a stage's time, for what takes longer than it was planned
MARGIN = 0.15
#: largest archive that is handed back, in bytes; a file that comes back may have 16 MiB
ARCHIVE = 15 * 2**20


class OutOfTime(KeyboardInterrupt):
    """A part of a stage took longer than it may; no ``except Exception`` on its way swallows it."""


@dataclass
class Context:
    """One stage's surroundings.

    Args:
        name: the stage's.
        work: its folder, which may be gone when it is resumed.
        output: where records and archives go.
        everything: the work folder of all stages.
        deadline: on ``time.monotonic``'s clock.
        minutes: that it was given.
        toy: whether it is only to be seen that everything runs.
        command: makes the record again, from the repository's root.
    """

    name: str
    work: Path
    output: Path
    everything: Path
    deadline: float
    minutes: float
    toy: bool
    command: str
    seeds: Sequence[int] = (0,)
    tables: dict[str, list[Row]] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def say(self, line: str) -> None:
        """A line on the way."""
        print(f"  {self.name}: {line}", flush=True)

    def put(self, table: str, rows: Sequence[Row]) -> None:
        """A table of the record, written at once; until the stage's end the record says that it is unfinished."""
        self.tables[table] = list(rows)
        self._write({**self.tables, UNFINISHED: [{"what": f"the stage {self.name} was stopped before its end"}]})

    def add(self, table: str, row: Row) -> None:
        """One more row of a table, written at once."""
        self.put(table, [*self.tables.get(table, []), row])

    def finish(self) -> None:
        """The record as it stays."""
        self._write(self.tables)

    def _write(self, tables: Mapping[str, Sequence[Row]]) -> None:
        record = new_record(tables, self.seeds, self.command)
        write_record(self.output / f"{self.name}.json", record)

    @contextmanager
    def limited(self, seconds: float) -> Iterator[None]:
        """A part of the stage that may take so long, and never longer than the stage.

        Raises:
            OutOfTime: in the middle of it.
        """

        def ring(number: int, frame: object) -> None:
            raise OutOfTime

        before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, max(0.01, min(seconds, self.left)))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def remembered(self, name: str, make: Any) -> Any:
        """A value in JSON that is made once: a resumed stage finds it again."""
        path = self.work / f"{name}.json"
        if not path.exists():
            write_aside(path, json.dumps(make()).encode())
        return json.loads(path.read_text(encoding="utf-8"))

    def archive(self, files: Mapping[str, Path]) -> list[str]:
        """Pack files, by their names within, for the way back, as far as they fit; returns the names left out."""
        path = self.everything / "archives" / f"{self.name}.zip"
        path.parent.mkdir(parents=True, exist_ok=True)
        size, left_out = 0, []
        temporary = path.with_name(f".{path.name}.{os.getpid()}")  # a stage that is ended here must leave no half of it
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, file in files.items():
                if size + file.stat().st_size > ARCHIVE - 2**16:
                    left_out.append(name)
                    continue
                size += file.stat().st_size
                archive.write(file, name)
        temporary.replace(path)
        return left_out


def said(error: BaseException) -> str:
    """An error in one line, not too long."""
    from bootdiff.core.errors import first_line

    return f"{type(error).__name__}: {first_line(error)}"


def below(folder: Path, prefix: str) -> dict[str, Path]:
    """The files of a folder, by their names within an archive."""
    return {f"{prefix}/{p.relative_to(folder)}": p for p in sorted(folder.rglob("*")) if p.is_file()}


def write_aside(path: Path, content: bytes) -> None:
    """Write a file whole: a reader sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)


def read_tables(path: Path) -> dict[str, list[dict[str, Any]]] | None:
    """The tables of a finished record; None where there is none."""
    try:
        tables = json.loads(path.read_text(encoding="utf-8"))["values"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    whole = isinstance(tables, dict) and tables and all(isinstance(rows, list) and rows for rows in tables.values())
    return tables if whole and UNFINISHED not in tables else None
