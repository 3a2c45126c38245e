"""The consistency student, which maps every point of a path to the path's end.

Consistency models (Song et al., arXiv 2303.01469) and LCM have such students. Source: docs/method.md, "Kinds of
students".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError, shown
from bootdiff.core.guidance import Plain
from bootdiff.schedules import EDM, expand
from bootdiff.students.base import Student
from bootdiff.students.boundary import Boundary, KarrasSkip, Naive, boundary_from, boundary_named
from bootdiff.students.growth import GrownNetwork
from bootdiff.students.reading import read
from bootdiff.students.teacher import StudentTeacher
from bootdiff.teachers.base import NO_CONDITION, Teacher
from bootdiff.teachers.one_call import OneCall

#: the largest number of times of a student
MOST_POINTS = 10_000
#: the number of noise levels that CMStochasticIterativeScheduler usually has
STOCK_POINTS = 40


class ConsistencyStudent(Student):
    """A student ``g(x_t, t) = skip(t) x_t + out(t) x_0(x_t, t)``, which is the path's end from wherever it is asked.

    Args:
        boundary: the factors skip and out, by which g(x, t_min) = x / alpha; None for those of its stock scheduler.
        points: the number of even times from t_max down at which it is called; None for all that its schedule has.
    """

    kind = "consistency"
    several = True
    timed = False
    probes = ("consistency",)
    begins_from = ("path",)

    def __init__(
        self,
        network: GrownNetwork,
        teacher: Teacher,
        t_min: float,
        t_max: float,
        guidance: Plain = None,
        boundary: Boundary | None = None,
        points: int | None = None,
    ) -> None:
        super().__init__(network, teacher, t_min, t_max, guidance)
        self.boundary, self.points = boundary or boundary_named("skip", self.reading), points

    def begin(self, boundary: str | None, grid: int) -> None:
        """Take the boundary and the times of a training; a student that it goes on from keeps its own.

        Args:
            boundary: ``skip``, ``naive``, or None for skip connections, or its own where the training goes on from it.
            grid: the times of the training's grid. Of EDM's noise levels the student is called at these, as far as
                CMStochasticIterativeScheduler usually has so many.

        Raises:
            BootdiffError: if another boundary is asked of a student that the training goes on from.
        """
        if not self.continued:
            self.boundary = boundary_named(boundary or "skip", self.reading)
            self.points = min(grid, STOCK_POINTS) if isinstance(self.schedule, EDM) else None
        elif boundary is not None and (boundary == "naive") != isinstance(self.boundary, Naive):
            raise BootdiffError(
                f"the student that this goes on from has the boundary {self.boundary.name}, and {boundary} is asked; "
                "leave it out."
            )

    @property
    def call(self) -> OneCall:
        """How one call from pure noise, at t_max, is read as the image."""
        skip, out = (v.item() for v in self.boundary.factors(self._start(1), self.t_min, self.schedule))
        start, plain = self.schedule.start_scale(self.t_max), self.reading.at(self.t_max)
        return OneCall(plain.scale, skip * start + out * plain.a, out * plain.b)

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """Return g(x_t, t), (b, *shape) in float32, for noisy samples (b, *shape) at times t (b,)."""
        factors = self.boundary.factors(t, self.t_min, self.schedule)
        skip, out = (expand(v.to(x_t.device, torch.float32), x_t) for v in factors)
        return skip * x_t.float() + out * read(self, x_t, t, None, condition)

    def image_inputs(self, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs (x_T, t_max) with which ``forward`` answers with the image."""
        return self.schedule.start_scale(self.t_max) * eps, self._start(len(eps)).to(eps.device)

    def fold(self, weight: float | None = None) -> nn.Module:
        """Return a network of the teacher's class that makes the image in one call from t_max."""
        return self.network.fold(self.own_timestep, None, self.weight(weight))

    def as_teacher(self) -> Teacher:
        """Return the student as a teacher, frozen: its answer at x_t is the path's end."""
        return StudentTeacher(self)

    @property
    def facts(self) -> Mapping[str, Any]:
        """What its card must hold beside every student's facts: the boundary, and the number of its times."""
        return {"boundary": self.boundary.as_json, **({} if self.points is None else {"points": self.points})}

    def take(self, facts: Mapping[str, Any]) -> None:
        """Take the boundary and the number of times from a card."""
        boundary = boundary_from(facts.get("boundary"))
        if isinstance(boundary, KarrasSkip) and not isinstance(self.schedule, EDM):
            raise BootdiffError("the boundary karras is for EDM's noise levels, and its teacher has others.")
        self.boundary, points = boundary, facts.get("points")
        if points is not None and not (type(points) is int and MOST_POINTS >= points >= 2):
            raise BootdiffError(f"points should be a whole number from 2 to {MOST_POINTS}, got {shown(points)}.")
        self.points = points

    def _start(self, count: int) -> Tensor:
        return torch.full((count,), self.t_max)
