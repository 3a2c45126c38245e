"""Carrying out a plan: first the stage before it, if there is one, and then the plan's own stage."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bootdiff.distillation.conditioning import Material
from bootdiff.distillation.fingerprints import student_hash
from bootdiff.distillation.plan import Plan
from bootdiff.distillation.start import started_from
from bootdiff.storage.lock import lock
from bootdiff.storage.runs import Run
from bootdiff.students.files import load_student
from bootdiff.students.folder import StudentFolder
from bootdiff.system.processes import word_of_first
from bootdiff.system.progress import is_first_process

if TYPE_CHECKING:
    from bootdiff.students import Student

# Whoever only plans need not wait until accelerate is imported, so the functions import it.


def run_plan(plan: Plan, report_to: str | None = None) -> Student:
    """Carry out a plan while no other run writes into its folder, and return the student.

    Raises:
        BootdiffError: if another process works in the folder; ``Interrupted`` after Ctrl-C.
    """
    from bootdiff.training.accelerator import make_accelerator

    with _alone(plan):
        accelerator = make_accelerator(plan.trained, plan.output, report_to)
        # Before the run is begun: a damaged encoder must leave nothing behind.
        material = plan.asked.make(plan.output, accelerator.device)
        if accelerator.is_main_process:
            _begin(plan)
        accelerator.wait_for_everyone()  # what is made for the batches lies in the run's folder
        total = len(plan.before) + 1
        for stage in plan.before:
            if not word_of_first(stage.finished):
                with _alone(stage):
                    _train(stage, material, report_to, total, last=False)
        return _train(plan, material, report_to, total)


def _train(plan: Plan, material: Material, report_to: str | None, total: int = 1, last: bool = True) -> Student:
    """Train one stage of a run, with the run's material, and return its student, which is left in the stage's folder.

    Args:
        total: the number of the run's stages.
        last: whether the run ends with this stage.
    """
    from bootdiff.distillation.stage import train_stage
    from bootdiff.training.accelerator import end_training, make_accelerator

    accelerator = make_accelerator(plan.trained, plan.output, report_to)
    if plan.is_stage and accelerator.is_main_process:
        _begin(plan)
    accelerator.wait_for_everyone()
    before, stage = (plan.before[-1].output if plan.before else None), plan.stage
    own, hashes = material, plan.sources
    if before is not None and stage is not None and stage.learns_from is not None:
        taught = load_student(before, plan.teacher)
        own = material._replace(teacher=stage.learns_from(taught), judge=material.teacher)
        if plan.own_samples:
            hashes = {**hashes, "round": student_hash(StudentFolder.unfolded(before).path)}
    maker = own if plan.own_samples else material
    own = own._replace(source=plan.source.make(maker, plan.store, accelerator.device, hashes))
    if before is not None and stage is not None and stage.continues:
        student: Student | None = started_from(before, plan.teacher, plan.settings, plan.method)
    else:
        student = plan.started
    material = own
    name = plan.name if plan.is_stage else plan.method.rpartition("+")[2]
    within = f", stage {len(plan.before) + 1} of {total} ({name})" if total > 1 else ""
    trained = train_stage(plan, material, student, accelerator, within)
    end_training(accelerator, last=last)
    return trained


@contextmanager
def _alone(plan: Plan) -> Iterator[None]:
    """Keep other processes from writing into the plan's folder, and restore a host program's state afterwards."""
    from bootdiff.training.accelerator import own_state

    with own_state(), lock(plan.output):
        if is_first_process():  # another process may have been there since it was looked at
            Run(plan.output).check(plan.config, plan.sources)
        yield


def _begin(plan: Plan) -> None:
    """Print what is often regretted, and write what the folder must hold when a run begins."""
    for caution in plan.settings.cautions(plan.teacher):
        print(f"bootdiff: note: {caution}", file=sys.stderr)
    origin = plan.teacher.denoiser.origin
    Run(plan.output).start(plan.config, plan.sources, origin.commit if origin else None)
    plan.asked.keep(plan.output)
