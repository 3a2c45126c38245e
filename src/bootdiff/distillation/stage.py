"""The training of one stage, from the network that it starts with to the saved student."""

from __future__ import annotations

from typing import cast

import torch
from accelerate import Accelerator

from bootdiff.core.errors import NonFiniteLossError
from bootdiff.distillation.conditioning import Material
from bootdiff.distillation.ending import Ended, check_best, divergence, first_pulse, save_results, take_best
from bootdiff.distillation.plan import Plan
from bootdiff.distillation.previews import preview_of
from bootdiff.methods.registry import find_method
from bootdiff.methods.settings import target_limit
from bootdiff.monitoring.watch import Watch
from bootdiff.monitoring.watch_plan import WatchPlan
from bootdiff.samplers.several import looked_at
from bootdiff.students import Student
from bootdiff.system.notes import note
from bootdiff.system.peak_memory import peak_memory
from bootdiff.teachers import Teacher, limited
from bootdiff.teachers.features import TeacherFeatures
from bootdiff.training.accelerator import start_tracker
from bootdiff.training.loop import Loop


def train_stage(
    plan: Plan, material: Material, student: Student | None, accelerator: Accelerator, within: str = ""
) -> Student:
    """Train to the last step, choose the best look's weights or the last ones, and save and return the student.

    Args:
        student: the student that the stage starts from; None if one is to be grown from the teacher.
        within: what progress and messages call the stage, after the learners' names.
    """
    settings = plan.trained
    torch.manual_seed(settings.seed)
    assert material.source is not None, "the run has made it"
    method = find_method(plan.method)
    # It is never grown from another student, which may have no network of the teacher's class.
    student = student or method.new_student(material.judge or material.teacher, settings)
    objective = method.build(material.teacher, settings, material.source, student)
    start_tracker(accelerator, settings)
    learner = cast("Student", objective.learners()["student"].module)
    watch = _watch(plan, material, accelerator.num_processes, learner)
    check_best(plan, watch)
    preview = preview_of(plan.teacher, material.conditions, plan.output)
    loop = Loop(objective, settings, plan.output, accelerator, preview, watch, within)
    # A path student's pulse asks the teacher, too.
    before = first_pulse(plan, loop, material) if plan.needs_teacher or "boundary" not in learner.probes else None
    student = _trained(plan, loop)
    best_step = take_best(student, watch, accelerator)
    diverged = None if before is None else divergence(plan, student, before, material)
    student.requires_grad_(False).eval().cpu()
    student.conditions = plan.asked.learned.model_dump(exclude_none=True)
    student.data_free, student.teacher_free = plan.data_free, plan.teacher_free
    plan.teacher.cpu()
    passes = loop.passes.totals()
    if accelerator.is_main_process and not plan.finished:
        seconds, chosen = round(loop.seconds, 1), best_step or loop.step
        free, untaught = plan.data_free, plan.teacher_free or None
        told = Ended(
            *(loop.step, seconds, chosen, diverged, free, passes), teacher_free=untaught, peak_memory=peak_memory()
        )
        save_results(plan, student, told)
    accelerator.wait_for_everyone()
    return student


def _watch(plan: Plan, material: Material, processes: int, student: Student) -> Watch | None:
    """Return what looks at the convergence.

    It is None if the run is too short to pay for looks, or if its method asks no teacher.
    """
    settings, teacher = plan.trained, material.judge or material.teacher
    if not plan.needs_teacher:
        if settings.watch_every != 0:
            note("there are no looks, which compare with the teacher's path: this method asks no teacher.")
        return None
    times = cast("tuple[float, float]", (settings.t_min, settings.t_max))  # a plan's are known
    shown = TeacherFeatures.of(teacher, times[0]) is not None
    calls = looked_at(student).calls
    looks = WatchPlan.of(settings, teacher.shape, processes, shown, student.probes, calls)
    if looks is None:
        return None
    return Watch(
        limited(teacher, target_limit(settings, teacher)),
        material.conditions,
        times,
        plan.output,
        looks,
        last_step=settings.steps,
        stops=settings.stop_when == "converged",
        warmup=settings.warm_from,
        keeps_best=settings.keep == "best",
    )


def _trained(plan: Plan, loop: Loop) -> Student:
    """Return the student after the last step, with its averaged weights."""
    try:
        learner = loop.run(show_progress=not plan.finished)["student"]
    except NonFiniteLossError as error:
        raise _blamed(plan.teacher, error) from error
    # Mixed precision patches the network's forward; the student that is handed out is the one that is saved.
    student = cast("Student", loop.accelerator.unwrap_model(learner.prepared, keep_fp32_wrapper=False))
    learner.swap()
    return student


def _blamed(teacher: Teacher, error: NonFiniteLossError) -> NonFiniteLossError:
    """Return an error that names the teacher if its values were not finite; otherwise the error as it is."""
    failed = getattr(teacher.denoiser, "failed_at", None)
    if failed is None:
        return error
    met = str(error).partition(" Lower the learning rate")[0]  # which is no cure here
    return NonFiniteLossError(
        f"the teacher {teacher.name} gives values that are not finite at t = {failed:.4g}; load it in float32, or "
        f"leave that time out with t_min and t_max. So {met}"
    )
