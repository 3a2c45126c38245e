"""The denoising student ``x_0(x_t, t)``, which answers as its teacher does and needs fewer steps.

Progressive distillation and ReFlow have such students. Source: docs/method.md, "Kinds of students".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.students.base import Student
from bootdiff.students.reading import read
from bootdiff.students.teacher import StudentTeacher
from bootdiff.teachers.base import NO_CONDITION, Teacher
from bootdiff.teachers.one_call import OneCall


class DenoisingStudent(Student):
    """A student ``x_0(x_t, t)``: a network of the teacher's class whose output is read as the teacher's, at any t.

    Grown from a teacher's network, it begins as the teacher itself.
    """

    kind = "denoising"
    several = True
    timed = False
    probes = ("straightness",)

    @property
    def call(self) -> OneCall:
        """How one call from pure noise, at t_max, is read as the image."""
        return self.reading.at(self.t_max)

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """Return x_0, (b, *shape) in float32, for noisy samples x_t (b, *shape) at times t (b,) in [t_min, t_max]."""
        return read(self, x_t, t, None, condition)

    def image_inputs(self, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs (x_T, t_max) with which ``forward`` answers with the image."""
        start = torch.full((len(eps),), self.t_max, device=eps.device)
        return self.schedule.start_scale(self.t_max) * eps, start

    def fold(self, weight: float | None = None) -> nn.Module:
        """Return a network of the teacher's class that makes the image in one call from t_max."""
        return self.network.fold(self.own_timestep, None, self.weight(weight))

    def as_teacher(self) -> Teacher:
        """Return the student as a teacher with the same schedule, frozen."""
        return StudentTeacher(self)
