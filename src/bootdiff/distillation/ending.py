"""The end of a distillation: which state becomes the student, whether it has diverged, and what is saved."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from bootdiff.core.errors import BootdiffError
from bootdiff.distillation.conditioning import Material
from bootdiff.export.card import refused_card
from bootdiff.export.diffusers import write_exported
from bootdiff.export.exported import Refused, export
from bootdiff.methods.settings import target_limit
from bootdiff.monitoring.best import BestLook
from bootdiff.monitoring.pulse import Pulse
from bootdiff.monitoring.watch import FOLDER_OF_THE_BEST, Watch
from bootdiff.storage.files import write_json, write_text
from bootdiff.storage.passes import with_earlier
from bootdiff.storage.runs import Run
from bootdiff.students import Student
from bootdiff.students.files import card_of, save_student
from bootdiff.system.notes import note
from bootdiff.system.processes import word_of_first
from bootdiff.teachers import limited
from bootdiff.teachers.base import Origin

if TYPE_CHECKING:
    from accelerate import Accelerator

    from bootdiff.distillation.plan import Plan
    from bootdiff.training.loop import Loop


@dataclass(frozen=True)
class Ended:
    """The facts of a finished run, as ``done.json`` holds them.

    Args:
        steps: the number of steps that were trained.
        seconds: the seconds that training took.
        student_step: the student's step: that of the best look, if it beat the last state, or else the last one.
        diverged: how a run without looks went wrong, as the end of a sentence; None where it did not.
        data_free: whether no image of a data set was read.
        passes: the passes of this stage's training by network, and in all as ``"all"``; None if they were not counted.
        not_exported: why there is no stock pipeline of the student, as one line; None where there is one.
        teacher_free: True where training asked no teacher; otherwise None.
        peak_memory: the bytes that the process has held at most; None where the system does not say.
    """

    steps: int
    seconds: float
    student_step: int
    diverged: str | None = None
    data_free: bool = True
    passes: dict[str, float] | None = None
    not_exported: str | None = None
    teacher_free: bool | None = None
    peak_memory: int | None = None


def take_best(student: Student, watch: Watch | None, accelerator: Accelerator) -> int | None:
    """Put the best look's weights into the student if they beat the last ones, and return their step, or None."""
    step = watch.best_step if watch is not None and accelerator.is_main_process else None
    step = word_of_first(step)
    if step is not None and watch is not None and (accelerator.is_main_process or watch.best.look is not None):
        watch.best.restore(student)
    return step


def check_best(plan: Plan, watch: Watch | None) -> None:
    """Refuse to go on without looks where a run keeps the weights of its best one.

    Raises:
        BootdiffError: if it would; the message names the setting.
    """
    folder = plan.output / FOLDER_OF_THE_BEST
    if watch is None and folder.is_dir():
        raise BootdiffError(
            f"{folder} holds the weights of the run's best look, and watch_every=0 would forget them; leave watch_every"
            " out, or remove that folder for the last step's."
        )


def first_pulse(plan: Plan, loop: Loop, material: Material) -> Pulse | None:
    """Return the student's pulse before its training, on the first process; None for a run with looks."""
    if loop.watch is not None or not loop.accelerator.is_main_process:
        return None
    return _pulse(plan, cast("Student", loop.networks["student"]), material)


def divergence(plan: Plan, student: Student, before: Pulse, material: Material) -> str | None:
    """Return how the student diverged since its first pulse, as the end of a sentence; None if it did not."""
    return _pulse(plan, student, material).alarm(before, plan.trained.anchored)


def _pulse(plan: Plan, student: Student, material: Material) -> Pulse:
    judge = material.judge or material.teacher
    learned = limited(judge, target_limit(plan.settings, judge))
    return Pulse.of(student, learned, material.conditions)


def save_results(plan: Plan, student: Student, ended: Ended) -> None:
    """Save the student as ``student-path`` and, if stock diffusers has a pipeline for it, as ``student``.

    ``done.json`` is written last; it and the student's README say why there is no stock pipeline, if there is none.

    If the best look's weights became the student, they stay, so that the results can be made again from the run. If
    not, they are removed before ``done.json`` is written, so that a run that is killed in between still hands over its
    last state.
    """
    # A resumed run may have been given its teacher by another path; the run's own is the one that its folder locates.
    words = Run(plan.output).config
    student.teacher_name = words["teacher"]
    if student.origin is not None:
        student.origin = Origin(words["teacher"], **words.get("teacher_options", {}), commit=student.origin.commit)
    save_student(student, Run(plan.output).student_path)
    if student.adapter is not None:
        step = "the last" if ended.student_step == ended.steps else f"the best look of {ended.steps}"
        told: dict[str, Any] = {"student_step": f"{ended.student_step}, {step}"}
        told["passes"] = with_earlier(plan.output, ended.passes)
        facts = {"method": plan.method, "settings": plan.settings.model_dump(), **told}
        weight = plan.settings.export_guidance
        exported = export(student, weight)
        if isinstance(exported, Refused):
            note(f"there is no stock pipeline of the student: {exported.reason}")
            readme = refused_card(card_of(student), exported.reason, facts)
            write_text(Run(plan.output).student_path / "README.md", readme)
            ended = replace(ended, not_exported=exported.reason)
        else:
            write_exported(student, exported, plan.output / "student", facts, weight)
    if ended.student_step == ended.steps:
        BestLook(plan.output / FOLDER_OF_THE_BEST).remove()
    write_json(plan.output / "done.json", {key: value for key, value in asdict(ended).items() if value is not None})
