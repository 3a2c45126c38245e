"""A student's image in one call, or a path student's answer for another time of its path."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.core.transfer import settled
from bootdiff.students import PathStudent, Student
from bootdiff.teachers.base import NO_CONDITION


class PathSampler:
    """An unfolded student as a sampler: it answers with the image, or a path student for the time ``t`` given."""

    #: the number of calls for one image
    calls = 1

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
