"""Whether a run that is too short for looks has diverged: a few of its student's answers, before and after it."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bootdiff.core.randomness import sample_noise
from bootdiff.data.conditions import Conditions
from bootdiff.students import Student
from bootdiff.teachers import Teacher

#: noises
COUNT = 8
#: times the mean square before the training, plus 1 (the variance that noise and data share): beyond it samples explode
EXPLODED = 10.0
SEED = 0x9015E


@dataclass(frozen=True)
class Pulse:
    """Mean squares over a few noises.

    Args:
        samples: of the student's samples as its network makes them, not limited.
        edge: of the difference between the student's answers at t_max and the teacher's (Eq. 9).
        teacher: of the teacher's answers at t_max.
    """

    samples: float
    edge: float
    teacher: float

    @classmethod
    @torch.no_grad()
    def of(cls, student: Student, teacher: Teacher, conditions: Conditions) -> Pulse:
        """Take it, one sample at a time, as there may be memory for one only.

        Args:
            teacher: guided and limited as the targets are.
        """
        with _eager(student, teacher):
            each = [_squares(student, teacher, conditions, number) for number in range(COUNT)]
        return cls(*(sum(values) / COUNT for values in zip(*each, strict=True)))

    def alarm(self, before: Pulse, anchored: bool = True) -> str | None:
        """How the student diverged since an earlier pulse, as the end of a sentence; None where it did not.

        Args:
            anchored: whether BOOT's boundary loss holds the student's answers at t_max; otherwise they may go anywhere.
        """
        if not all(math.isfinite(value) for value in (self.samples, self.edge)):
            return "its samples are not finite"
        if self.samples > EXPLODED * (before.samples + 1):
            return f"the mean square of its samples is {self.samples:.3g}, and was {before.samples:.3g} before"
        if anchored and self.edge > before.edge + self.teacher:
            return f"at t_max its error is {self.edge:.3g}, and that of an answer of 0 would be {self.teacher:.3g}"
        return None


def _squares(student: Student, teacher: Teacher, conditions: Conditions, number: int) -> tuple[float, float, float]:
    """The three mean squares of one sample."""
    device = next(student.parameters()).device
    eps = sample_noise(SEED, number, number + 1, teacher.shape).to(device)
    condition = conditions.listed(SEED, number, number + 1).to(device)
    t_min, t_max = (torch.full((1,), t, device=device) for t in (student.t_min, student.t_max))
    start = teacher.x0(teacher.schedule.start_scale(student.t_max) * eps, t_max, condition)
    edge = student(eps, t_max, condition) - start
    samples, off, answer = (float(v.double().square().mean()) for v in (student(eps, t_min, condition), edge, start))
    return samples, off, answer


def _eager(*networks: nn.Module) -> AbstractContextManager[Any]:
    """A compiled network would be compiled for this batch size, too."""
    modules = (module for network in networks for module in network.modules())
    compiled = any(getattr(module, "_compiled_call_impl", None) is not None for module in modules)
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()
