"""A check of whether a run without looks has diverged, from a few answers of its student before and after it."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bootdiff.core.randomness import sample_noise
from bootdiff.data.conditions import Conditions
from bootdiff.students import Student
from bootdiff.teachers import Teacher

#: the number of noises
COUNT = 8
#: samples have exploded if their mean square exceeds the one before training, plus 1, by this factor (1 is the
#: variance that noise and data share)
EXPLODED = 10.0
SEED = 0x9015E


@dataclass(frozen=True)
class Pulse:
    """A student's pulse: mean squares over its answers to a few noises.

    Args:
        samples: the mean square of the student's samples as its network makes them, not limited.
        edge: the mean square of the difference between a path student's answers at t_max and the teacher's (Eq. 9); 0
            for another kind of student, which has no such answer.
        teacher: the mean square of the teacher's answers at t_max; 0 likewise.
    """

    samples: float
    edge: float
    teacher: float

    @classmethod
    @torch.no_grad()
    def of(cls, student: Student, teacher: Teacher, conditions: Conditions) -> Pulse:
        """Return a student's pulse, taken one sample at a time, because there may be memory for one only.

        Args:
            teacher: the teacher, guided and limited as the targets are.
        """
        with _eager(student, teacher):
            each = [_squares(student, teacher, conditions, number) for number in range(COUNT)]
        return cls(*(sum(values) / COUNT for values in zip(*each, strict=True)))

    def alarm(self, before: Pulse, anchored: bool = True) -> str | None:
        """Return how the student diverged since an earlier pulse, as the end of a sentence; None if it did not.

        Args:
            anchored: whether BOOT's boundary loss holds the student's answers at t_max; without it they may change
                freely.
        """
        if not all(math.isfinite(value) for value in (self.samples, self.edge)):
            return "its samples are not finite"
        if self.samples > EXPLODED * (before.samples + 1):
            return f"the mean square of its samples is {self.samples:.3g}, and was {before.samples:.3g} before"
        if anchored and self.teacher and self.edge > before.edge + self.teacher:
            return f"at t_max its error is {self.edge:.3g}, and that of an answer of 0 would be {self.teacher:.3g}"
        return None


def _squares(student: Student, teacher: Teacher, conditions: Conditions, number: int) -> tuple[float, float, float]:
    """Return one sample's mean squares: of the sample, of the error at t_max, and of the teacher's answer there."""
    device = next(student.parameters()).device
    eps = sample_noise(SEED, number, number + 1, teacher.shape).to(device)
    condition = conditions.listed(SEED, number, number + 1).to(device)
    samples = _square(student.image(eps, condition))
    if "boundary" not in student.probes:
        return samples, 0.0, 0.0
    t_max = torch.full((1,), student.t_max, device=device)
    start = teacher.x0(teacher.schedule.start_scale(student.t_max) * eps, t_max, condition)
    return samples, _square(student(eps, t_max, condition) - start), _square(start)


def _square(values: Tensor) -> float:
    return float(values.double().square().mean())


def _eager(*networks: nn.Module) -> AbstractContextManager[Any]:
    """Return a context in which compiled networks run uncompiled.

    Otherwise they would be compiled again for this batch size.
    """
    modules = (module for network in networks for module in network.modules())
    compiled = any(getattr(module, "_compiled_call_impl", None) is not None for module in modules)
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()
