"""Students as samplers, exported or unfolded: one network call for a batch."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bootdiff.builtin import BUILTIN_TEACHERS
from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError, first_line
from bootdiff.core.transfer import settled
from bootdiff.samplers.base import Sampler
from bootdiff.students import Student
from bootdiff.students.files import FILE, guidance_in, load_student, path_folder, read_facts, student_facts
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

        self.facts = read_facts(folder / FILE) if (folder / FILE).exists() else {}
        try:
            parts = Parts(folder)
            parts.size = self.facts.get("teacher_options", {}).get("size")
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
        """One network call and one scheduler step."""
        network, scheduler = settled(self.network, eps.device), copy.copy(self.scheduler)  # which counts its steps
        scheduler.set_timesteps(1)
        t = scheduler.timesteps[0].to(eps.device)
        out = self.adapter.call(network, eps, t.expand(len(eps)), condition).float()
        return scheduler.step(out, t, eps).prev_sample

    def told_weight(self, weight: float | None) -> float | None:
        """Where the network has a slot for it: a weight from the range that was learned."""
        learned, embedded = guidance_in(self.facts), self.adapter.guidance == "embedded"
        if isinstance(learned, tuple) and embedded:
            if weight is not None and not learned[0] <= weight <= learned[1]:
                raise BootdiffError(f"guidance weight {weight:g} is outside what it learned, {list(learned)}.")
            return sum(learned) / 2 if weight is None else weight
        usual = self.adapter.usual_weight if embedded else 1.0
        here = self.facts.get("folded_weight", usual if learned is None else learned)
        if weight is not None and weight != here:
            raise BootdiffError(f"this student has guidance weight {here:g} folded in; it cannot serve {weight:g}.")
        return here if embedded else None


class PathSampler:
    """An unfolded student, asked for t_min or another time."""

    def __init__(self, student: Student, t: float | None = None) -> None:
        self.student, self.shape, self.adapter, self.t = student, student.shape, student.adapter, t

    def __call__(self, eps: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """Samples in one call."""
        return settled(self.student, eps.device).sample(eps, condition, self.t)

    def told_weight(self, weight: float | None) -> float | None:
        """The student's."""
        return self.student.told_weight(weight)


def open_student(name: str) -> tuple[Sampler, dict[str, Any]]:
    """A one-step sampler from a run, a ``student-path`` or an exported student, and what its ``bootdiff.json`` says.

    Raises:
        BootdiffError: if the folder is none of them, or its run is not finished.
    """
    folder = Path(name)
    if not folder.is_dir():
        more = (
            f" {name} is a builtin teacher: bootdiff distill {name} --output RUN makes one."
            if name in BUILTIN_TEACHERS
            else ""
        )
        raise BootdiffError(f"no folder at '{name}'; expected a run or a student.{more}")
    if (folder / "model_index.json").exists() and not (folder / "student").exists():
        stock = StockStudent(folder)
        return stock, stock.facts
    student = load_student(path_folder(folder))
    return PathSampler(student), student_facts(student)
