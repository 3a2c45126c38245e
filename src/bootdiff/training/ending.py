"""The end of a distillation: which state becomes the student, whether it has diverged, and what is saved."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from bootdiff.data.conditions import Conditions
from bootdiff.objectives.settings import DistillationSettings, target_limit
from bootdiff.pipelines.export import export_student
from bootdiff.pipelines.student_files import save_student
from bootdiff.student import Student
from bootdiff.teachers import Teacher, limited
from bootdiff.training.pulse import Pulse
from bootdiff.training.watch import Watch

if TYPE_CHECKING:
    from accelerate import Accelerator

    from bootdiff.training.distill import Plan


def take_best(student: Student, watch: Watch | None, accelerator: Accelerator) -> int | None:
    """Put the best look's weights into the student where they beat the last ones; return that look's step, or None."""
    from accelerate.utils import broadcast_object_list

    step = watch.best_step if watch is not None and accelerator.is_main_process else None
    step = broadcast_object_list([step])[0]
    if step is not None and watch is not None:
        watch.best.restore(student)
    return step


def take_pulse(student: Student, plan: Plan, teacher: Teacher, conditions: Conditions) -> Pulse:
    """The pulse of a run without looks.

    Args:
        teacher: with guidance; it is limited here as the targets are.
    """
    settings = cast("DistillationSettings", plan.settings)
    return Pulse.of(student, limited(teacher, target_limit(settings, teacher)), conditions)


def anchored(plan: Plan) -> bool:
    """Whether BOOT's loss holds the student at t_max; a correction may go without it."""
    return getattr(plan.settings, "boot_weight", 1.0) > 0


def save_results(plan: Plan, student: Student, student_step: int | None = None) -> None:
    """``student-path`` for every teacher, and ``student`` where stock diffusers has a pipeline for it.

    Args:
        student_step: of the best look, where its weights are the student's; None for the last step.
    """
    save_student(student, plan.output / "student-path")
    if student.adapter is not None:
        words = {"method": plan.method, "settings": plan.settings.model_dump(), "student_step": student_step}
        weight = getattr(plan.settings, "export_guidance", None)
        export_student(student, plan.output / "student", words, weight)
