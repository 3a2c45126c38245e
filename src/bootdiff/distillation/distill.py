"""Distillation in one call, from a teacher to a run folder and a student."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bootdiff.config.settings import TrainingSettings
from bootdiff.data.conditions import Conditions
from bootdiff.data.sources import Source
from bootdiff.distillation.plan import plan_distillation
from bootdiff.distillation.run import run_plan
from bootdiff.storage.runs import Run
from bootdiff.students.files import load_student
from bootdiff.system.processes import word_of_first

if TYPE_CHECKING:
    from bootdiff.students import Student


def distill(
    teacher: Any,
    output: Path | str,
    settings: TrainingSettings | None = None,
    method: str = "boot",
    report_to: str | None = None,
    conditions: Conditions | None = None,
    source: Source | None = None,
) -> Student:
    """Distil a teacher into a one-step student; the same call resumes an interrupted run.

    Args:
        teacher: the result of ``load_teacher`` or ``CallableTeacher``, or what ``load_teacher`` takes: a name or a
            diffusers pipeline.
        output: the run's folder.
        settings: the method's settings, for instance ``BootSettings(steps=2000, prompts="prompts.txt")``.
        conditions: the conditions of a teacher of your own; those of a pipeline are described by the settings.
        source: what batches hold, for a method that learns from more than noise; the settings describe it otherwise.

    Returns:
        The student with its averaged weights, also saved as ``output/student`` (stock diffusers) and
        ``output/student-path`` (answers for every t).

    Raises:
        BootdiffError: if the input is bad, before anything is written; ``Interrupted`` after Ctrl-C.
    """
    plan = plan_distillation(teacher, output, settings, method, conditions, source)
    if word_of_first(plan.finished):
        Run(plan.output).tidy()
        return load_student(Run(plan.output).student_path, plan.teacher)
    return run_plan(plan, report_to)
