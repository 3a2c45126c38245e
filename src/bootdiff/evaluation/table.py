"""The table of measured rows, as a file keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bootdiff.data.conditions import Conditions, Weighted
from bootdiff.evaluation.curve import LADDER, Chooser, teacher_entries
from bootdiff.evaluation.engine import Entry
from bootdiff.evaluation.equivalence import equivalence
from bootdiff.samplers.rows import Candidate, student_row
from bootdiff.storage.files import read_json
from bootdiff.storage.runs import Run
from bootdiff.system.out_of_memory import told_when_out_of_memory
from bootdiff.teachers import Teacher, adapter_of

#: the advice for when the memory does not suffice
LOWER = "lower --num, or leave --clip and large --features out"
#: the version of a table's file; a file of another version is made anew
FORMAT = 2


@told_when_out_of_memory(LOWER)
def table_entries(
    chooser: Chooser,
    further: Sequence[Entry],
    calls: Sequence[int] = LADDER,
    path: bool = True,
    more: Sequence[Candidate] = (),
) -> list[Entry]:
    """Return the rows of a table: the teacher's, which are chosen now, and further ones.

    Args:
        further: the rows of students, and others.
        calls, path, more: the teacher's rows, as ``teacher_entries`` takes them.
    """
    return [*teacher_entries(chooser, calls, path, more), *further]


@told_when_out_of_memory(LOWER)
def measured_table(chooser: Chooser, entries: Sequence[Entry], latencies: bool = False) -> dict[str, Any]:
    """Return the measured rows as JSON holds them.

    A student's row says how many of its teacher's calls its call is worth.

    Args:
        chooser: what chooses the teacher's samplers, with the engine.
        latencies: whether milliseconds for one image are measured, too.
    """
    engine = chooser.engine
    rows = engine.rows(entries, latencies)
    for row in rows:
        row["call_equivalence"] = equivalence(row, rows).as_json() if row["kind"] == "student" else None
    features, student, noises = engine.judges.features, student_row(rows), engine.noises
    return {
        "format": FORMAT,
        "teacher": chooser.teacher.name,
        "features": features.name if features is not None else None,
        "num": noises.num,
        "seed": noises.seed,
        "repeats": noises.repeats,
        "call_equivalence": None if student is None else student["call_equivalence"],
        "rows": rows,
        "choice": chooser.tried,
    }


def teachers_conditions(teacher: Teacher, conditions: Conditions) -> Conditions:
    """Return a student's conditions without a guidance weight that only the student must be told."""
    adapter = adapter_of(teacher)
    told = adapter is not None and adapter.embedded_weight is not None
    return conditions.inner if isinstance(conditions, Weighted) and not told else conditions


def read_evaluation(folder: Path) -> dict[str, Any] | None:
    """Return the evaluation that a run keeps; None if it has none, or one of an earlier version.

    Raises:
        BootdiffError: if the file cannot be read.
    """
    path = Run(folder).figures
    held = read_json(path) if path.is_file() else {}
    return held if held.get("format") == FORMAT else None
