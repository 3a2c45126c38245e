"""The jump student, which goes from any x_t to any earlier time s of the teacher's path in one call.

TRACT (Berthelot et al., arXiv 2303.04248) has such students. Source: docs/method.md, "Kinds of students".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.solvers import ddim_step
from bootdiff.students.base import Student
from bootdiff.students.reading import read
from bootdiff.students.teacher import StudentTeacher
from bootdiff.teachers.base import NO_CONDITION, Teacher
from bootdiff.teachers.one_call import OneCall


class JumpStudent(Student):
    """A student that is told two times: x_t at t, and the time s < t to which it jumps.

    It answers with the x_0 by which one DDIM step leads from (x_t, t) to the path's point at s. Grown from a teacher's
    network, it begins as the teacher: as one DDIM step, wherever it jumps.
    """

    kind = "jump"
    several = True
    timed = True

    @property
    def call(self) -> OneCall:
        """How one call from pure noise, from t_max to t_min, is read as the image."""
        return self.reading.at(self.t_max)

    def forward(self, x_t: Tensor, t: Tensor, s: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """Return the x_0, (b, *shape) in float32, that leads from x_t (b, *shape) at t to s; both times are (b,)."""
        return read(self, x_t, t, s, condition)

    def jump(self, x_t: Tensor, t: Tensor, s: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """Return x_s, (b, *shape), for x_t (b, *shape) and times t and s (b,)."""
        return ddim_step(x_t, self(x_t, t, s, condition), t, s, self.schedule)

    def image_inputs(self, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the inputs (x_T, t_max, t_min) with which ``forward`` answers with the image."""
        start, end = (torch.full((len(eps),), t, device=eps.device) for t in (self.t_max, self.t_min))
        return self.schedule.start_scale(self.t_max) * eps, start, end

    def fold(self, weight: float | None = None) -> nn.Module:
        """Return a network of the teacher's class that makes the image in one call, the jump from t_max to t_min."""
        target = self.schedule.timestep(torch.tensor([self.t_min])).item()
        return self.network.fold(self.own_timestep, target, self.weight(weight))

    def as_teacher(self, times: Sequence[float] = ()) -> Teacher:
        """Return the student as a teacher whose answer at each of these times leads to the next lower one.

        Args:
            times: falling times of a grid, from t_max to t_min, at which alone it can be asked.

        Raises:
            BootdiffError: if fewer than two times are given.
        """
        if len(times) < 2:
            raise BootdiffError("a jump student is a teacher on a grid of times; give as_teacher the grid's times.")
        return _GridTeacher(self, times)


class _GridTeacher(StudentTeacher):
    """A jump student that is asked at the times of a grid, and jumps to the next one each time."""

    def __init__(self, student: JumpStudent, times: Sequence[float]) -> None:
        super().__init__(student)
        self.grid: Tensor
        self.register_buffer("grid", torch.tensor(sorted(times)))  # float32: MPS has no float64

    def x0(self, x_t: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """Return the x_0, (b, *shape), of the jump to the grid's next lower time.

        Raises:
            BootdiffError: for a time that is none of the grid's, as far as that can be told without waiting for a GPU.
        """
        if t.device.type == "cpu" and bool(((t[:, None] - self.grid.to(t)).abs().min(1).values > 1e-4).any()):
            raise BootdiffError("a jump student as a teacher answers at the times of its grid only; ask it there.")
        place = torch.searchsorted(self.grid, t.to(self.grid) - 1e-6).clamp(min=1)
        return self.inner(x_t, t, self.grid[place - 1].to(t), condition)
