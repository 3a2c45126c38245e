"""Students as samplers: exported or unfolded, they answer a batch of noises in one network call."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from bootdiff.builtin import BUILTIN_TEACHERS
from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError, first_line
from bootdiff.core.transfer import settled
from bootdiff.samplers.base import Sampler
from bootdiff.students import PathStudent, Student
from bootdiff.students.card import StudentCard
from bootdiff.students.files import card_of, load_student
from bootdiff.students.folder import StudentFolder
from bootdiff.system.out_of_memory import let_pass
from bootdiff.system.quiet import quietly
from bootdiff.teachers.adapters import adapter_for
from bootdiff.teachers.adapters.base import Adapter
from bootdiff.teachers.base import NO_CONDITION
from bootdiff.teachers.loading.parts import Parts


class StockStudent:
    """An exported student, called through stock diffusers' own network and scheduler."""

    def __init__(self, folder: Path) -> None:
        import diffusers

        self.card = StudentFolder(folder, is_export=True).card
        try:
            parts = Parts(folder, size=self.card.origin.size)
            self.adapter: Adapter = adapter_for(parts.pipeline_class, f"{folder} is a {parts.pipeline_class}")(parts)
            self.network: Any = self.adapter.load()
            words = parts.scheduler
            with quietly():
                self.scheduler = getattr(diffusers, words["_class_name"]).from_config(words)
        except BootdiffError as error:
            raise BootdiffError(f"{folder} cannot be opened as a pipeline ({error})") from error
        except Exception as error:  # diffusers raises many kinds; to the user each means a damaged folder
            let_pass(error)
            raise BootdiffError(f"{folder} cannot be opened as a pipeline ({first_line(error)}).") from error
        if words.get("num_train_timesteps") not in (1, 2):
            raise BootdiffError(
                f"{folder} holds a pipeline ({parts.pipeline_class}) but no one-step student (its scheduler has "
                f"{words.get('num_train_timesteps')} timesteps); expected a run, or a student that bootdiff exported."
            )
        self.shape = self.adapter.shape
        self.network.requires_grad_(False).eval()

    @torch.no_grad()
    def __call__(self, eps: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """Return samples (b, *shape), made by one network call and one scheduler step."""
        network, scheduler = settled(self.network, eps.device), copy.copy(self.scheduler)  # which counts its steps
        scheduler.set_timesteps(1)
        t = scheduler.timesteps[0].to(eps.device)
        out = self.adapter.call(network, eps, t.expand(len(eps)), condition).float()
        return scheduler.step(out, t, eps).prev_sample

    def told_weight(self, weight: float | None) -> float | None:
        """Return the guidance weight that the network's condition must hold; None where it has no slot for one.

        A weight that is asked for must be in the range that was learned, or the one that is folded in.
        """
        learned, usual = self.card.weight, self.adapter.embedded_weight
        if learned.is_range and usual is not None:
            return learned.served(weight)
        without = 1.0 if usual is None else usual
        known = learned.fixed if self.card.folded_weight is None else self.card.folded_weight
        here = without if known is None else known
        if weight is not None and weight != here:
            raise BootdiffError(f"this student has guidance weight {here:g} folded in; it cannot serve {weight:g}.")
        return None if usual is None else here


class PathSampler:
    """An unfolded student as a sampler: it answers with the image, or a path student for the time ``t`` given."""

    def __init__(self, student: Student, t: float | None = None) -> None:
        self.student, self.shape, self.adapter, self.t = student, student.shape, student.adapter, t

    def __call__(self, eps: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """Return samples (b, *shape), made by one network call."""
        student = settled(self.student, eps.device)
        if self.t is None:
            return student.sample(eps, condition)
        return cast("PathStudent", student).sample(eps, condition, self.t)

    def told_weight(self, weight: float | None) -> float | None:
        """Return the guidance weight that the student's condition must hold; None where it holds none."""
        return self.student.told_weight(weight)


def open_student(name: str) -> tuple[Sampler, StudentCard]:
    """Open a run, a ``student-path`` or an exported student; return its one-step sampler and its card.

    Raises:
        BootdiffError: if the folder is none of these, or its run is not finished.
    """
    if not Path(name).is_dir():
        more = (
            f" {name} is a builtin teacher: bootdiff distill {name} --output RUN makes one."
            if name in BUILTIN_TEACHERS
            else ""
        )
        raise BootdiffError(f"no folder at '{name}'; expected a run or a student.{more}")
    folder = StudentFolder.at(name)
    if folder.is_export:
        stock = StockStudent(folder.path)
        return stock, stock.card
    student = load_student(folder.path)
    return PathSampler(student), card_of(student)
