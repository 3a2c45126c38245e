"""A student as a teacher: ``student.as_teacher()`` answers as every teacher does."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import TYPE_CHECKING

from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.teachers.base import NO_CONDITION, Teacher
from bootdiff.teachers.reading import Reading

if TYPE_CHECKING:
    from bootdiff.students.base import Student


class StudentTeacher(Teacher):
    """A frozen copy of a student, which answers ``x_0(x_t, t, condition)``.

    A further student is not grown from it: it starts from a saved student of the same kind.
    """

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.inner = copy.deepcopy(student).requires_grad_(False).eval()
        self.name, self.schedule, self.shape = student.teacher_name, student.schedule, student.shape
        self.limit, self.origin, self.adapter = student.limit, student.origin, student.adapter

    def x0(self, x_t: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """Return x_0, (b, *shape) in float32, as the student answers at (x_t, t)."""
        return self.inner(x_t, t, condition)

    @property
    def reading(self) -> Reading:
        """How the student's network is read."""
        return self.inner.reading

    @cached_property
    def t_range(self) -> tuple[float, float]:
        """The range (t_min, t_max) that the student learned."""
        return self.inner.t_min, self.inner.t_max
