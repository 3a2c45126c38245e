"""What a student's table is of: its teacher's samplers, and the rows of the student and of what belongs to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bootdiff.data.conditions import Cascade
from bootdiff.evaluation.curve import Chooser, Stock
from bootdiff.evaluation.engine import Engine, Entry
from bootdiff.evaluation.measure import Listed
from bootdiff.evaluation.table import teachers_conditions
from bootdiff.samplers.cascades import BothStages, Remembered
from bootdiff.samplers.refine import refined_rows
from bootdiff.samplers.rows import FIRST, ONE_CALL, REFINED, Candidate, Row, path_end, starts_elsewhere
from bootdiff.samplers.students import open_student
from bootdiff.sampling.belonging import Opened
from bootdiff.sampling.cascade import base_teacher
from bootdiff.storage.runs import STAGE, Run
from bootdiff.teachers.guidance import calls_an_answer


def chooser_of(student: str, opened: Opened, engine: Engine, labels: Sequence[int] | None) -> Chooser:
    """What decides on the samplers of a student's teacher; of a cascade both its teachers are sampled.

    Args:
        student: its run or folder.
        opened: the same with its teacher.
        labels: the classes that its prompts ask for.
    """
    conditions = teachers_conditions(opened.teacher, opened.conditions)
    base = base_teacher(student, opened.conditions)
    if base is None or not isinstance(opened.conditions, Cascade):
        return Chooser(engine, Stock(opened.teacher), opened.teacher, Listed(conditions, labels, opened.texts))
    remembered = Remembered(**vars(opened.conditions))
    samplers = BothStages(remembered, base, opened.teacher)
    return Chooser(engine, samplers, opened.teacher, Listed(remembered, labels, opened.texts))


def rows_beside(
    student: str, opened: Opened, listed: Listed, labels: Sequence[int] | None, ends: bool = False
) -> list[Entry]:
    """The student's row, after those of its run's first stage and of its own path's exact end, where there are any.

    Args:
        student: its run or folder.
        opened: the same with its teacher.
        listed: what the teacher is sampled on.
        labels: the classes that its prompts ask for.
        ends: whether the exact end of the student's path is a row, where it starts elsewhere than the teacher's.
    """
    first = first_stage_entry(student, opened, labels)
    rows = [] if first is None else [first]
    if ends and starts_elsewhere(opened.teacher, opened.t_range):
        rows.insert(0, Entry(path_end(opened.path_of, opened.t_range), opened.path_of, listed))
    return [*rows, *student_entries([student], [opened], labels, titles=[None])]


def student_entries(
    names: Sequence[str],
    group: Sequence[Opened],
    labels: Sequence[int] | None = None,
    refine: Sequence[int] = (),
    level: float | None = None,
    titles: Sequence[str | None] | None = None,
) -> Iterator[Entry]:
    """A row for every student; each is compared with the end of the path that it learned.

    Args:
        labels: the classes that their prompts ask for.
        refine: further rows, of the student and so many steps of its teacher.
        level: the time at which the teacher takes over; by default where sigma / alpha is 1/3.
        titles: of the rows; by default the last parts of the folders' names.
    """
    for name, title, opened in zip(names, titles or short_names(names), group, strict=True):
        listed, path = listed_of(opened, labels), (opened.path_of, opened.t_range)
        calls = 1 + isinstance(opened.conditions, Cascade)
        row = Row("student", ONE_CALL, 1, calls, method=method_of(name), title=title)
        yield Entry(Candidate(row, opened.sampler), opened.teacher, listed, path)
        cost = calls_an_answer(opened.teacher)
        for count, refined in zip(refine, refined_rows(opened.sampler, opened.teacher, refine, level), strict=True):
            more = Row(
                "student", REFINED, count, calls + count * cost, method=row.method, start=refined.level, title=title
            )
            yield Entry(Candidate(more, refined), opened.teacher, listed, path)


def first_stage_entry(student: str, opened: Opened, labels: Sequence[int] | None = None) -> Entry | None:
    """The student of a run's first stage; None where the run has none."""
    folder = Path(student) / STAGE
    if not (folder / "student-path").is_dir():
        return None
    calls = 1 + isinstance(opened.conditions, Cascade)
    row = Row("student", ONE_CALL, 1, calls, method=method_of(str(folder)), stage=FIRST)
    candidate = Candidate(row, open_student(str(folder))[0])
    return Entry(candidate, opened.teacher, listed_of(opened, labels), (opened.path_of, opened.t_range))


def listed_of(opened: Opened, labels: Sequence[int] | None) -> Listed:
    """What a student's samples are conditioned on."""
    return Listed(opened.conditions, labels, opened.texts)


def method_of(student: str) -> str | None:
    """The method of a student's run, where there is one around it."""
    run = Run.around(student)
    return run.config.get("method") if run.started else None


def short_names(names: Sequence[str]) -> list[str]:
    """The last parts of folders, as many as tell them apart."""
    parts = [Path(name).resolve().parts for name in names]
    for count in range(1, max(map(len, parts)) + 1):
        short = ["/".join(part[-count:]) for part in parts]
        if len(set(short)) == len(short):
            return short
    return list(names)
