"""BOOT: data-free distillation with bootstrapping (Gu et al., arXiv 2306.05544)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from bootdiff.condition import Condition
from bootdiff.data.sources import Batch, Noise
from bootdiff.objectives.base import Learner, Loss, Networks, Stateless, Turn
from bootdiff.objectives.distances import DISTANCES, Distance, SquaredError
from bootdiff.objectives.times import TIME_SAMPLINGS, TimeSampling, UniformTime
from bootdiff.objectives.weights import WEIGHTS, UniformWeight, Weight
from bootdiff.solvers import SOLVERS, Euler, Solver, noisy
from bootdiff.student import Student
from bootdiff.teachers import Limited, Teacher
from bootdiff.training.settings import TrainingSettings


class BootSettings(TrainingSettings):
    """BOOT's own settings; the defaults are the paper's where it states them."""

    delta: float = Field(0.04, gt=0, lt=1, description="step t − s of the bootstrap, in units of t in [0, 1]")
    t_min: float | None = Field(None, ge=0, le=1, description="time of the image; none = the teacher's first step")
    t_max: float | None = Field(None, ge=0, le=1, description="time of the noise; none = the last with alpha ≥ 0.02")
    solver: Literal["euler", "heun"] = Field("euler", description="of the target: first or second order")
    loss_weight: Literal["uniform", "signal", "adaptive"] = Field("uniform", description="of the bootstrap loss")
    distance: Literal["l2", "l1", "huber"] = Field("l2", description="between prediction and target")
    time_sampling: Literal["uniform", "progressive"] = Field("uniform", description="how t is drawn")
    boundary_weight: float = Field(1.0, ge=0, description="beta, of the boundary loss; 0 = none")
    boundary_every: int = Field(4, ge=1, description="steps between boundary losses")
    clip_targets: bool = Field(True, description="clip or threshold the teacher's x_0 as its scheduler says")

    @model_validator(mode="after")
    def _times(self) -> BootSettings:
        low, high = self.t_min or 0.0, 1.0 if self.t_max is None else self.t_max
        if low >= high:
            raise ValueError(f"t_min must be below t_max, got t_min = {low:g} and t_max = {high:g}")
        if self.delta >= high - low:
            raise ValueError(f"delta must be below t_max − t_min = {high - low:g}, got {self.delta:g}")
        return self


@dataclass
class Boot(Stateless):
    """L = L_BS + beta L_BC (Eqs. 8 and 9).

    Args:
        teacher: f; limited (clipped) where the targets should be.
        student: the raw learner and its optimiser settings.
        delta: the step t − s, in units of t.
        boundary_weight: beta.
        boundary_every: the boundary loss is computed on every k-th step only; k divides beta's effect.
    """

    teacher: Teacher
    student: Learner
    delta: float = 0.04
    solver: Solver = field(default_factory=Euler)
    weight: Weight = field(default_factory=UniformWeight)
    distance: Distance = field(default_factory=SquaredError)
    times: TimeSampling = field(default_factory=UniformTime)
    boundary_weight: float = 1.0
    boundary_every: int = 1

    def __post_init__(self) -> None:
        self.source = Noise(self.teacher.shape)
        model = self.student.module
        if not isinstance(model, Student):
            raise TypeError(f"expected a Student to learn, got {type(model).__name__}")
        self.t_min, self.t_max = model.t_min, model.t_max

    @classmethod
    def from_settings(cls, teacher: Teacher, settings: BootSettings) -> Boot:
        """A student grown from the teacher, and the objects that the settings' words stand for."""
        student = Student.from_teacher(teacher, settings.t_min, settings.t_max)
        return cls(
            teacher=teacher.inner if isinstance(teacher, Limited) and not settings.clip_targets else teacher,
            student=Learner(
                student, settings.learning_rate, weight_decay=settings.weight_decay, ema_decay=settings.ema_decay
            ),
            delta=settings.delta,
            solver=SOLVERS[settings.solver],
            weight=WEIGHTS[settings.loss_weight],
            distance=DISTANCES[settings.distance],
            times=TIME_SAMPLINGS[settings.time_sampling],
            boundary_weight=settings.boundary_weight,
            boundary_every=settings.boundary_every,
        )

    def learners(self) -> Mapping[str, Learner]:
        """One network learns."""
        return {"student": self.student}

    def frozen(self) -> Sequence[torch.nn.Module]:
        """The teacher."""
        return (self.teacher,)

    def turns(self, step: int) -> Sequence[str]:
        """One turn a step."""
        return ("student",)

    def loss(self, networks: Networks, turn: Turn, batch: Batch) -> Loss:
        """L_BS, and on every k-th step L_BC: one student and one teacher pass carry both, as larger batches."""
        student, eps, condition = networks["student"], batch.noise, batch.condition
        # t ~ U(t_min, t_max), s = max(t − delta, t_min). Where the weight diverges at s → t, t stays delta above t_min.
        t = self.times(turn, self.t_min + self.delta * self.weight.singular, self.t_max)
        s = (t - self.delta).clamp(min=self.t_min)
        boundary = self.boundary_weight > 0 and turn.step % self.boundary_every == 0
        with torch.no_grad():
            y_t = student(eps, t, condition)
            target, f_T = self.targets(y_t, eps, t, s, condition, boundary)
        y_s, y_T = self.predict(student, eps, s, condition, boundary)

        kappa = self.teacher.schedule.kappa(t, s)
        distance = self.distance(y_s, target)
        weight = self.weight(distance.detach(), kappa, t, self.distance.degree)
        # Eqs. 8, 14, 15
        bootstrap = (weight * distance).mean()
        residual = ((y_s.detach() - target).square().flatten(1).mean(1)).sqrt() / kappa
        whole = t - s > 0.5 * self.delta  # where s is clipped to t_min, kappa vanishes and r says nothing
        loss = Loss(bootstrap, {"bootstrap": bootstrap.detach()}, {"residual": (t[whole], residual[whole])})
        if y_T is not None and f_T is not None:
            # Eq. 9
            edge = self.distance(y_T, f_T).mean()
            loss.total = bootstrap + self.boundary_weight * edge
            loss.scalars["boundary"] = edge.detach()
        return loss

    def targets(
        self, y_t: Tensor, eps: Tensor, t: Tensor, s: Tensor, condition: Condition, boundary: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The bootstrap target and, if asked for, the boundary's f(x_T, t_max); without gradients."""
        schedule = self.teacher.schedule
        x_t = noisy(y_t, eps, t, schedule)  # x̂_t = alpha_t y_t + sigma_t eps
        if not boundary:
            f_t, f_T = self.teacher.x0(x_t, t, condition), None
        else:
            x_T = schedule.start_scale(self.t_max) * eps
            both = torch.cat([t, torch.full_like(t, self.t_max)])
            f_t, f_T = self.teacher.x0(torch.cat([x_t, x_T]), both, condition.repeat(2)).chunk(2)
        return self.solver.step(self.teacher, y_t, f_t, eps, t, s, condition), f_T

    def predict(
        self, student: torch.nn.Module, eps: Tensor, s: Tensor, condition: Condition, boundary: bool
    ) -> tuple[Tensor, Tensor | None]:
        """y_theta(eps, s) and, if asked for, y_theta(eps, t_max), with gradients, in one pass."""
        if not boundary:
            return student(eps, s, condition), None
        both = torch.cat([s, torch.full_like(s, self.t_max)])
        y_s, y_T = student(torch.cat([eps, eps]), both, condition.repeat(2)).chunk(2)
        return y_s, y_T
