"""One table for students and their teacher: same noises, same features, same reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bootdiff.data.conditions import Conditions, Unconditional, Weighted
from bootdiff.evaluation.curve import LADDER, Chooser, Stock, teacher_entries
from bootdiff.evaluation.engine import Engine, Entry, Noises
from bootdiff.evaluation.equivalence import equivalence
from bootdiff.evaluation.measure import Listed
from bootdiff.evaluation.tally import Judges
from bootdiff.samplers.base import Sampler
from bootdiff.samplers.rows import ONE_CALL, Candidate, Row, path_end, starts_elsewhere, student_row
from bootdiff.storage.files import read_json
from bootdiff.system.out_of_memory import told_when_out_of_memory
from bootdiff.teachers import Teacher, adapter_of

NOBODY = Judges()
#: what to do where the memory does not suffice
LOWER = "lower --num, or leave --clip and large --features out"
#: of what a table is as a file; a file of another one is made anew
FORMAT = 2


def evaluate(
    students: Mapping[str, Sampler],
    teacher: Teacher,
    t_range: tuple[float, float],
    judges: Judges = NOBODY,
    listed: Listed = Listed(Unconditional()),
    num: int = 2000,
    seed: int = 0,
    repeats: int = 1,
    calls: Sequence[int] = LADDER,
    heun: bool = True,
    path_of: Teacher | None = None,
) -> dict[str, Any]:
    """Measure students and their teacher from the same noises and conditions.

    Args:
        students: one-step samplers by name.
        t_range: (t_min, t_max) of the path that the students learned.
        judges: feature space, reference and CLIP model; without any only path error and speed are measured.
        listed: what the samples are conditioned on.
        num: samples a noise seed.
        seed: noise seed r uses the samples of seed ``seed + r · num``.
        repeats: noise seeds.
        calls: network calls at which the teacher's best sampler is looked for.
        heun: whether the exact ends of the teacher's path, and of the students', are rows.
        path_of: whose path the students learned, where their targets were limited in another way than the teacher's.

    Returns:
        A JSON-ready dictionary; ``rows`` holds the teacher's rows, then the students'.
    """
    engine = Engine(judges, Noises(num, seed, repeats))
    path = (path_of or teacher, t_range)
    entries = [
        Entry(Candidate(Row("student", ONE_CALL, 1, 1, title=name), sampler), teacher, listed, path)
        for name, sampler in students.items()
    ]
    own = Listed(teachers_conditions(teacher, listed.conditions), listed.labels, listed.texts)
    chooser = Chooser(engine, Stock(teacher), teacher, own)
    ends = [Entry(path_end(*path), path[0], own)] if heun and starts_elsewhere(*path) else []
    return measured_table(chooser, table_entries(chooser, [*ends, *entries], calls, heun))


@told_when_out_of_memory(LOWER)
def table_entries(
    chooser: Chooser,
    further: Sequence[Entry],
    calls: Sequence[int] = LADDER,
    path: bool = True,
    more: Sequence[Candidate] = (),
) -> list[Entry]:
    """The teacher's rows, chosen now, and further ones.

    Args:
        further: students, and other rows.
        calls, path, more: of the teacher's rows (``teacher_entries``).
    """
    return [*teacher_entries(chooser, calls, path, more), *further]


@told_when_out_of_memory(LOWER)
def measured_table(chooser: Chooser, entries: Sequence[Entry], latencies: bool = False) -> dict[str, Any]:
    """The rows as JSON holds them; a student's says how many of its teacher's calls its call is worth.

    Args:
        chooser: of the teacher's samplers, with the engine.
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
    """A student's conditions without a guidance weight that only the student must be told."""
    adapter = adapter_of(teacher)
    told = adapter is not None and adapter.guidance == "embedded"
    return conditions.inner if isinstance(conditions, Weighted) and not told else conditions


def read_evaluation(folder: Path) -> dict[str, Any] | None:
    """What a run keeps of its evaluation; None where it has none, or one of an earlier version.

    Raises:
        BootdiffError: if the file cannot be read.
    """
    path = folder / "evaluation.json"
    held = read_json(path) if path.is_file() else {}
    return held if held.get("format") == FORMAT else None
