"""TBCM: continuous-time consistency on states of the teacher's own path (arXiv 2511.20410; sCM, arXiv 2410.11081).

Source: docs/method.md, "TBCM". No data, no fake network: the states are stored, and a small step of the teacher from
each says how the answers change along its path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor

from bootdiff.config.mixins import StoredTrajectories
from bootdiff.core.device import in_float64
from bootdiff.core.errors import BootdiffError
from bootdiff.core.turn import Turn
from bootdiff.data.sources import Batch, Source
from bootdiff.losses.distances import Distance, make_distance
from bootdiff.methods.base import Learner, Loss, Networks, OneLearner, learner_of
from bootdiff.methods.method import method
from bootdiff.methods.settings import DistillationSettings, target_limit
from bootdiff.schedules import expand
from bootdiff.solvers import noisy, teacher_step
from bootdiff.students.consistency import ConsistencyStudent
from bootdiff.teachers import Teacher, limited


class TbcmSettings(StoredTrajectories, DistillationSettings):
    """The settings of TBCM."""

    boundary: Literal["skip", "naive"] | None = Field(
        default=None, description="g(x, t_min) = x by skip connections, or no boundary at all; none = skip, or start's"
    )
    tangent_step: float = Field(default=0.02, ge=1e-4, lt=1, description="t − s, by which the tangent is measured")
    tangent_floor: float = Field(
        default=0.1, gt=0, le=1e6, description="c of the normalised tangent g / (|g| + c); large = not normalised"
    )
    solver: Literal["euler", "heun"] = Field(default="heun", description="of the teacher's step: first or second order")

    @model_validator(mode="after")
    def _step_fits(self) -> Self:
        if self.tangent_step >= self.span:
            raise BootdiffError(f"tangent_step must be below t_max − t_min = {self.span:g}, got {self.tangent_step:g}.")
        return self

    @model_validator(mode="after")
    def _differences_are_no_pictures(self) -> Self:
        if self.distance in ("lpips", "digits"):
            raise BootdiffError(
                f"tbcm learns differences, which are no pictures for distance={self.distance}; take l2."
            )
        return self

    def cautions(self, teacher: Teacher) -> Sequence[str]:
        """Return a sentence if the networks answer in half precision."""
        if self.mixed_precision == "no":
            return ()
        return ("tbcm learns from small differences of answers, which mixed_precision rounds away; leave it out.",)


@method("tbcm", TbcmSettings, sources=("trajectories",), student="consistency")
@dataclass
class Tbcm(OneLearner):
    """The objective E d(F, SG[F − v / (|v| + c)]), F the student's x_0 within g and v the tangent of g.

    The state at t is one step of the teacher from the stored one above it.
    The tangent is that along the teacher's path, by a difference: cos a_t (g(x_t, t) − g(x̂_s, s)) / (a_t − a_s), in
    the angle a = arctan(sigma / alpha) of sCM, in which it stays finite at both ends.

    Args:
        teacher: f, limited as the targets are.
        student: the learner.
        step: t − s.
        floor: c, with |v| as the root of the mean square of a sample's values.
        second_order: whether the step from x_t to x̂_s is Heun's.
    """

    teacher: Teacher
    student: Learner
    source: Source
    distance: Distance
    step: float
    floor: float
    second_order: bool

    @classmethod
    def from_settings(
        cls, teacher: Teacher, settings: TbcmSettings, source: Source, student: ConsistencyStudent
    ) -> Self:
        """Return the objective with the objects that the settings' words stand for."""
        student.begin(settings.boundary, settings.trajectory_times)
        return cls(
            limited(teacher, target_limit(settings, teacher)),
            learner_of(student, settings),
            source,
            make_distance(settings.distance, teacher.shape, settings.lpips_weights),
            settings.tangent_step,
            settings.tangent_floor,
            settings.solver == "heun",
        )

    def losses(self, networks: Networks, turn: Turn, batch: Batch) -> Sequence[Callable[[], Loss]]:
        """Return the one term of the loss; the tangent is computed here, without gradients."""
        count = len(batch.times)
        number = turn.draw.integers("state", count - 1).to(batch.noise.device)  # not the path's end
        above, below = batch.times[number], batch.times[number + 1]
        state = batch.states[torch.arange(len(number), device=number.device), number]
        # Between two stored states: what is learned at these alone says nothing of the times between them.
        student = cast("ConsistencyStudent", self.student.module)
        # Not up to t_min: there g is the sample whatever F is, and the step has no length.
        t = (above - (above - below) * turn.draw.uniform("t").to(above)).clamp(min=student.t_min + self.step / 2)
        t = torch.minimum(t, above)  # the teacher steps down
        s = (t - self.step).clamp(min=student.t_min)
        with torch.no_grad():
            x = noisy(state, batch.noise, above, self.teacher.schedule)
            x_t = teacher_step(self.teacher, x, above, t, batch.condition, self.second_order)
            x_s = teacher_step(self.teacher, x_t, t, s, batch.condition, self.second_order)
            here, there = (networks["student"](*point, batch.condition) for point in ((x_t, t), (x_s, s)))
            tangent = expand(self.per_angle(t, s).to(here), here) * (here - there)
            move = -self.normalised(tangent)
        out = student.boundary.factors(t, student.t_min, self.teacher.schedule)[1]

        def moved() -> Loss:
            answer = networks["student"](x_t, t, batch.condition)
            # g = skip x_t + out F: what is learned is F. In floating point the difference is exactly zero.
            of_network = (answer - answer.detach()) / expand(out.to(answer), answer)
            loss = self.regression("tangent", of_network, move)
            return replace(loss, scalars={"tangent": tangent.square().mean().sqrt()})

        return [moved]

    def per_angle(self, t: Tensor, s: Tensor) -> Tensor:
        """Return cos a_t / (a_t − a_s), (b,) in float64, with the angle a = arctan(sigma / alpha)."""
        a_t, a_s = (self.teacher.schedule.lambda_(in_float64(time)).exp().atan() for time in (t, s))
        return a_t.cos() / (a_t - a_s)

    def normalised(self, tangent: Tensor) -> Tensor:
        """Return v / (|v| + c) for tangents v (b, *shape), where |v| is a sample's root mean square."""
        size = tangent.square().flatten(1).mean(1).sqrt()
        return tangent / expand(size + self.floor, tangent)
