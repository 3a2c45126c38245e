"""Students as rows: of their runs, of the stage before, and with a few steps of their teacher after them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bootdiff.data.conditions import Cascade
from bootdiff.evaluation.engine import Entry
from bootdiff.evaluation.measure import Listed
from bootdiff.evaluation.opening import Opened
from bootdiff.evaluation.rows import FIRST, ONE_CALL, REFINED, Candidate, Row
from bootdiff.pipelines.refine import refined_rows
from bootdiff.pipelines.samplers import open_student
from bootdiff.runs import STAGE, Run
from bootdiff.teachers.guidance import calls_an_answer


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
