"""Whether a run that is too short for looks has diverged: a few of its student's answers, before and after it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from bootdiff.data.conditions import Conditions
from bootdiff.randomness import sample_noise
from bootdiff.student import Student
from bootdiff.teachers import Teacher

#: noises; so few that the check costs less than a step
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
        """Take it; ``teacher`` is guided and limited as the targets are."""
        device = next(student.parameters()).device
        eps = sample_noise(SEED, 0, COUNT, teacher.shape).to(device)
        condition = conditions.listed(SEED, 0, COUNT).to(device)
        t_min, t_max = (torch.full((COUNT,), t, device=device) for t in (student.t_min, student.t_max))
        start = teacher.x0(teacher.schedule.start_scale(student.t_max) * eps, t_max, condition)
        edge = student(eps, t_max, condition) - start
        return cls(*(float(v.double().square().mean()) for v in (student(eps, t_min, condition), edge, start)))

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
