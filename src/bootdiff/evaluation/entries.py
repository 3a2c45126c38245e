"""The rows of a student's table: its teacher's samplers, the student, and what belongs to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bootdiff.data.conditions import Cascade
from bootdiff.evaluation.curve import Chooser, Stock
from bootdiff.evaluation.engine import Engine, Entry
from bootdiff.evaluation.measure import Listed
from bootdiff.evaluation.table import teachers_conditions
from bootdiff.samplers.base import Sampler
from bootdiff.samplers.cascades import BothStages, Remembered
from bootdiff.samplers.consistency import MultistepConsistency
from bootdiff.samplers.one_call import PathSampler
from bootdiff.samplers.refine import refined_rows
from bootdiff.samplers.rows import (
    CONSISTENCY,
    FEW_STEPS,
    FIRST,
    ONE_CALL,
    REFINED,
    Candidate,
    Row,
    path_end,
    starts_elsewhere,
)
from bootdiff.samplers.several import CALLS, Called, student_samplers
from bootdiff.samplers.students import open_student
from bootdiff.sampling.belonging import Opened
from bootdiff.sampling.cascade import base_teacher
from bootdiff.storage.runs import Run
from bootdiff.students import Student
from bootdiff.teachers.guidance import calls_an_answer


def chooser_of(student: str, opened: Opened, engine: Engine, labels: Sequence[int] | None) -> Chooser:
    """Return what chooses between the samplers of a student's teacher; for a cascade, of both its teachers.

    Args:
        student: the student's run or folder.
        opened: the same student, opened beside its teacher.
        labels: the classes that the student's prompts ask for.
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
    """Return the student's row, after those of its run's earlier stages and of its path's exact end.

    The earlier stages' rows and the path's are there only if the run has them.

    Args:
        student: the student's run or folder.
        opened: the same student, opened beside its teacher.
        listed: the conditions on which the teacher is sampled.
        labels: the classes that the student's prompts ask for.
        ends: whether the exact end of the student's path is a row, if it starts elsewhere than the teacher's.
    """
    rows = stage_entries(student, opened, labels)
    if ends and starts_elsewhere(opened.teacher, opened.t_range):
        rows.insert(0, Entry(path_end(opened.path_of, opened.t_range), opened.path_of, listed))
    return [*rows, *student_entries([student], [opened], labels, titles=[None], calls=CALLS)]


def student_entries(
    names: Sequence[str],
    group: Sequence[Opened],
    labels: Sequence[int] | None = None,
    refine: Sequence[int] = (),
    level: float | None = None,
    titles: Sequence[str | None] | None = None,
    calls: Sequence[int] = (),
) -> Iterator[Entry]:
    """Yield a row for every student, which is compared with the end of the path that it learned.

    Args:
        labels: the classes that the students' prompts ask for.
        refine: numbers of teacher steps; each student also gets a row with each of them.
        level: the time at which the teacher takes over; by default where sigma / alpha is 1/3.
        calls: numbers of calls; a student that can be called several times also gets a row with each of them above 1.
        titles: the rows' titles; by default the last parts of the folders' names.
    """
    for name, title, opened in zip(names, titles or short_names(names), group, strict=True):
        listed, path = listed_of(opened, labels), (opened.path_of, opened.t_range)
        base = int(isinstance(opened.conditions, Cascade))
        free = opened.card.data_free
        own = own_calls(opened.sampler)
        evaluated = base + evaluations_of(opened.sampler)
        row = Row("student", *own, evaluated, method=method_of(name), title=title, data_free=free)
        yield Entry(Candidate(row, opened.sampler), opened.teacher, listed, path)
        for called in called_several_times(opened.sampler, calls):
            more = replace(row, sampler=called.sampler, steps=called.calls, calls=base + called.calls)
            same_path = called.sampler != CONSISTENCY  # fresh noise leads to another image
            yield Entry(Candidate(more, called.sample, same_path), opened.teacher, listed, path)
        cost = calls_an_answer(opened.teacher)
        for count, refined in zip(refine, refined_rows(opened.sampler, opened.teacher, refine, level), strict=True):
            more = replace(row, sampler=REFINED, steps=count, calls=base + 1 + count * cost, start=refined.level)
            yield Entry(Candidate(more, refined), opened.teacher, listed, path)


def own_calls(sampler: Sampler) -> tuple[str, int]:
    """Return what rows of tables call the sampler of an opened student, and its calls for one image."""
    calls = int(getattr(sampler, "calls", 1))
    return (ONE_CALL if calls == 1 else CONSISTENCY if isinstance(sampler, MultistepConsistency) else FEW_STEPS), calls


def evaluations_of(sampler: Sampler) -> int:
    """Return how often the network of an opened student is evaluated for one image."""
    return sampler.student.evaluations if isinstance(sampler, PathSampler) else own_calls(sampler)[1]


def called_several_times(sampler: Sampler, calls: Sequence[int]) -> Iterator[Called]:
    """Yield the samplers with these numbers of calls above 1 of a student that was opened to be called once.

    There are none of a path student, and none of an exported one, whose run has them.
    """
    student = getattr(sampler, "student", None)
    if isinstance(student, Student) and student.any_calls and own_calls(sampler)[1] == 1:
        yield from student_samplers(student, [count for count in calls if count > 1])


def stage_entries(student: str, opened: Opened, labels: Sequence[int] | None = None) -> list[Entry]:
    """Return the rows of the students of a run's earlier stages; empty if the run has one stage."""
    base, rows = int(isinstance(opened.conditions, Cascade)), []
    for number, run in enumerate(Run(student).earlier):
        if run.student_path.is_dir():
            folder, stage = str(run.folder), FIRST if number == 0 else run.folder.name
            sampler, card = open_student(folder, teacher=opened.teacher)
            own, free = own_calls(sampler), card.data_free
            evaluated = base + evaluations_of(sampler)
            row = Row("student", *own, evaluated, method=method_of(folder), stage=stage, data_free=free)
            candidate = Candidate(row, sampler, same_path=own[0] != CONSISTENCY)
            listed = listed_of(opened, labels)
            rows.append(Entry(candidate, opened.teacher, listed, (opened.path_of, opened.t_range)))
    return rows


def listed_of(opened: Opened, labels: Sequence[int] | None) -> Listed:
    """Return the conditions of a student's samples."""
    return Listed(opened.conditions, labels, opened.texts)


def method_of(student: str) -> str | None:
    """Return the method of a student's run; None if there is no run around it."""
    run = Run.around(student)
    return run.config.get("method") if run.started else None


def short_names(names: Sequence[str]) -> list[str]:
    """Return the last parts of folders' names, as many as are needed to tell them apart."""
    parts = [Path(name).resolve().parts for name in names]
    for count in range(1, max(map(len, parts)) + 1):
        short = ["/".join(part[-count:]) for part in parts]
        if len(set(short)) == len(short):
            return short
    return list(names)
