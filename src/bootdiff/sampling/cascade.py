"""Cascades: a base stage's student, and the student that enlarges its images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from bootdiff.config.mixins import NOISE_LEVEL
from bootdiff.core.condition import Condition
from bootdiff.core.device import best_device
from bootdiff.core.errors import BootdiffError
from bootdiff.data.conditions import Cascade, Conditions, Upscaler
from bootdiff.samplers.base import Sampler
from bootdiff.samplers.choice import Choice, conditions_for
from bootdiff.samplers.students import open_student
from bootdiff.sampling.guidance import with_guidance
from bootdiff.storage.runs import Run
from bootdiff.students.card import StudentCard
from bootdiff.system.notes import note
from bootdiff.teachers import Teacher, load_teacher
from bootdiff.teachers.adapters.base import Adapter
from bootdiff.teachers.adapters.upscaling import check_enlarges


def base_teacher(student: str, conditions: Conditions) -> Teacher | None:
    """Return the teacher of a cascade's base stage, with its guidance.

    It is None if that teacher has gone, because only some rows need it.
    """
    run = Run.around(student)
    name = run.settings.get("base")
    if name is None or not isinstance(conditions, Cascade):
        return None
    base = run.locate(name)
    sampler, card = open_student(base)
    its_run = Run.around(base)
    try:
        teacher = load_teacher(its_run.locate(str(card.teacher)), **its_run.locate_all(card.teacher_options))
    except BootdiffError as error:
        note(f"the base stage's teacher cannot be opened, so the rows of both teachers are left out: {error}")
        return None
    return with_guidance(teacher, sampler, card, None)


def cascade(
    base: str, sampler: Sampler, card: StudentCard, conditions: Conditions, prompts: Sequence[str]
) -> Conditions:
    """Return the conditions of a super-resolution student whose small images are made by the student ``base``.

    Raises:
        BootdiffError: if one of the two is no such stage, or if their sizes do not fit.
    """
    stage = check_upscales(sampler, base)
    small, small_card = open_student(base)
    check_enlarges(stage, small.adapter, small.shape, base)
    learned = card.conditions.noise_level
    level = NOISE_LEVEL if learned is None else learned
    own = conditions_for(small, small_card, Choice(prompts=prompts))
    return Cascade(conditions, _Module(small), own, tuple(small.shape), cast("Upscaler", stage), level)


def check_upscales(sampler: Sampler, base: str) -> Adapter:
    """Return the adapter of a super-resolution student.

    Raises:
        BootdiffError: if the student is no super-resolution student.
    """
    stage = sampler.adapter
    if stage is None or not stage.upscales:
        raise BootdiffError(
            f"the second student makes no larger images of {base}'s: it is no super-resolution stage; name one student."
        )
    return stage


class _Module(torch.nn.Module):
    """A sampler as a module on the accelerator, which is the form that a cascade needs."""

    def __init__(self, sampler: Sampler) -> None:
        super().__init__()
        self.sampler = sampler
        self.where: torch.nn.Parameter = torch.nn.Parameter(torch.zeros((), device=best_device()), requires_grad=False)

    def forward(self, eps: torch.Tensor, condition: Condition) -> torch.Tensor:
        return self.sampler(eps, condition)
