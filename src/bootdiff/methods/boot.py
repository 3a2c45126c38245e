"""BOOT: data-free distillation with bootstrapping (Gu et al., arXiv 2306.05544).

The equations are the paper's; they stand in docs/method.md, "Bootstrapping" and "The boundary", too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from bootdiff.config.mixins import Times
from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.core.forward_mode import with_derivative
from bootdiff.core.turn import Turn
from bootdiff.data.sources import Batch, Noise, Source
from bootdiff.losses.distances import Distance, SquaredError, make_distance
from bootdiff.losses.loss_weights import WEIGHTS, UniformWeight, Weight
from bootdiff.losses.times import TIME_SAMPLINGS, TimeSampling, UniformTime
from bootdiff.methods.base import Learner, Loss, Networks, OneLearner, learner_of
from bootdiff.methods.method import method
from bootdiff.methods.settings import DistillationSettings, check_gradients, target_limit
from bootdiff.schedules import expand
from bootdiff.solvers import SOLVERS, Euler, Solver, noisy
from bootdiff.students import PathStudent, Student
from bootdiff.teachers import Teacher, limited

if TYPE_CHECKING:
    from bootdiff.methods.corrections.settings import CorrectionSettings


#: alpha at t_max below which lambda'_t grows without bound towards it; a step of a solver is bounded there
LEAST_SIGNAL = 1e-3


class BootLoss(Times):
    """The settings of BOOT's loss; the defaults are the paper's where it states them."""

    delta: float = Field(default=0.04, gt=0, lt=1, description="step t − s of the bootstrap, in units of t in [0, 1]")
    solver: Literal["euler", "heun", "jvp"] = Field(
        default="euler",
        description="of the target: first or second order; jvp: no step, the derivative by t in forward mode (Eq. 7)",
    )
    loss_weight: Literal["uniform", "signal", "adaptive"] = Field(
        default="uniform", description="of the bootstrap loss"
    )
    time_sampling: Literal["uniform", "progressive"] = Field(default="uniform", description="how t is drawn")
    boundary_weight: float = Field(default=1.0, ge=0, le=1e6, description="beta, of the boundary loss; 0 = none")
    boundary_every: int = Field(default=4, ge=1, description="steps between boundary losses")
    jvp_full: bool = Field(default=False, description="for solver jvp: gradients through the teacher's answer, too")

    @property
    def anchored(self) -> bool:
        """Whether the boundary loss holds the student's answers at t_max."""
        return self.boundary_weight > 0

    @model_validator(mode="after")
    def _step_fits(self) -> Self:
        if self.delta >= self.span:
            raise BootdiffError(f"delta must be below t_max − t_min = {self.span:g}, got {self.delta:g}.")
        return self

    @model_validator(mode="after")
    def _forward_mode_fits(self) -> Self:
        if self.jvp_full and self.solver != "jvp":
            raise BootdiffError(f"jvp_full is for solver=jvp, and solver is {self.solver}; leave one out.")
        for key in ("gradient_checkpointing", "compile"):
            if self.solver == "jvp" and getattr(self, key, False):
                raise BootdiffError(f"solver=jvp has no derivatives with {key}; leave {key} out, or take solver=euler.")
        return self


class BootSettings(BootLoss, DistillationSettings):
    """All settings of BOOT: those of its loss, and those of every distillation."""


@method("boot", BootSettings)
@dataclass
class Boot(OneLearner):
    """BOOT's objective: L = L_BS + beta L_BC (Eqs. 8 and 9); with no solver L_DE + beta L_BC (Eqs. 7 and 9).

    Args:
        teacher: f; it is limited (clipped) where the targets should be.
        student: the raw learner and its optimiser settings.
        delta: the step t − s, in units of t.
        solver: of the target; None for Eq. 7, which has the derivative by t in place of a step.
        boundary_weight: beta, the weight of the boundary loss.
        boundary_every: k: the boundary loss is computed in every k-th step only, which divides beta's effect by k.
        source: noise and the samples' conditions; f̃ of Eq. 10 is a teacher with guidance.
        full: for Eq. 7, whether gradients pass through the teacher's answer, too.
    """

    teacher: Teacher
    student: Learner
    delta: float = 0.04
    solver: Solver | None = field(default_factory=Euler)
    weight: Weight = field(default_factory=UniformWeight)
    distance: Distance = field(default_factory=SquaredError)
    times: TimeSampling = field(default_factory=UniformTime)
    boundary_weight: float = 1.0
    boundary_every: int = 1
    source: Source | None = None
    full: bool = False

    def __post_init__(self) -> None:
        self.source: Source = self.source or Noise(self.teacher.shape)
        model = self.student.module
        if not isinstance(model, PathStudent):
            raise TypeError(f"expected a PathStudent to learn, got {type(model).__name__}")
        self.t_min, self.t_max = model.t_min, model.t_max

    @classmethod
    def from_settings(
        cls,
        teacher: Teacher,
        settings: BootSettings | CorrectionSettings,
        source: Source | None = None,
        student: Student | None = None,
    ) -> Boot:
        """Return the objective with the objects that the settings' words stand for.

        The student is grown from the teacher where none is given.
        """
        if settings.solver == "jvp":
            check_derivatives(teacher, settings.jvp_full)
        student = student or cls.method.new_student(teacher, settings)
        student.target_limit = target_limit(settings, teacher)
        return cls(
            teacher=limited(teacher, student.target_limit),
            student=learner_of(student, settings),
            delta=settings.delta,
            solver=None if settings.solver == "jvp" else SOLVERS[settings.solver],
            weight=WEIGHTS[settings.loss_weight],
            distance=make_distance(settings.distance, teacher.shape, settings.lpips_weights),
            times=TIME_SAMPLINGS[settings.time_sampling],
            boundary_weight=settings.boundary_weight,
            boundary_every=settings.boundary_every,
            source=source,
            full=settings.jvp_full,
        )

    def losses(self, networks: Networks, turn: Turn, batch: Batch) -> Sequence[Callable[[], Loss]]:
        """Return L_BS, and in every k-th step beta L_BC; the targets of both are computed here, without gradients."""
        student, teacher, schedule = networks["student"], self.teacher, self.teacher.schedule
        eps, condition = batch.noise, batch.condition
        boundary = self.boundary_weight > 0 and turn.step % self.boundary_every == 0
        t = self.draw_times(turn)
        t_max = torch.full_like(t, self.t_max)
        x_T = schedule.start_scale(self.t_max) * eps
        if self.solver is None:
            with torch.no_grad():
                f_T = teacher.x0(x_T, t_max, condition) if boundary else x_T
            terms = [lambda: self.differential(student, eps, t, condition)]
        else:
            # Differs from the poster's Algorithm 1, which misprints min.
            s = (t - self.delta).clamp(min=self.t_min)
            with torch.no_grad():
                y_t = student(eps, t, condition)
                x_t = noisy(y_t, eps, t, schedule)  # x̂_t = alpha_t y_t + sigma_t eps
                if boundary:  # one batch for both of the teacher's answers
                    both = teacher.x0(torch.cat([x_t, x_T]), torch.cat([t, t_max]), condition.repeat(2))
                    f_t, f_T = both.chunk(2)
                else:
                    f_t = teacher.x0(x_t, t, condition)
                target = self.solver.step(teacher, y_t, f_t, eps, t, s, condition)  # Eq. 5, or 16
            terms = [lambda: self.bootstrap(student(eps, s, condition), target, t, s)]
        if boundary:
            terms.append(lambda: self.boundary(student(eps, t_max, condition), f_T))
        return terms

    def draw_times(self, turn: Turn) -> Tensor:
        """Return t ~ U(t_min, t_max), (b,), above where the weight diverges and below where lambda'_t does."""
        low, high = self.t_min, self.t_max
        if self.solver is not None:
            return self.times(turn, low + self.delta * self.weight.singular, high)  # s → t at t_min
        if float(self.teacher.schedule.alpha_sigma(torch.tensor([high]))[0]) < LEAST_SIGNAL:
            high -= self.delta
        return self.times(turn, low, high)

    def differential(self, student: nn.Module, eps: Tensor, t: Tensor, condition: Condition) -> Loss:
        """Return L_DE = E w ‖y' + lambda'_t (f(x̂_t, t) − y)‖², Eq. 7, as the distance over a step of the length delta.

        Gradients pass through y and y' of the student, and through f if that is asked for.
        """
        y, slope = with_derivative(lambda at: student(eps, at, condition), t)
        with nullcontext() if self.full else torch.no_grad():
            f_t = self.teacher.x0(noisy(y, eps, t, self.teacher.schedule), t, condition)
        step = self.delta * self.teacher.schedule.slope(t)  # what kappa is for small delta
        # Both at t − delta, by the student's slope and by the path's: the square of their difference is delta² L_DE.
        return self.weighted(y - self.delta * slope, y + expand(step, y) * (f_t - y), step, t)

    def bootstrap(self, y_s: Tensor, target: Tensor, t: Tensor, s: Tensor) -> Loss:
        """Return L_BS = E w(t, s) d(y_theta(eps, s), SG[y_t + kappa (f(x̂_t, t) − y_t)]), Eqs. 8, 14, 15."""
        # Where s is clipped to t_min, kappa vanishes and the residual r = (y_s − target) / kappa says nothing.
        return self.weighted(y_s, target, self.teacher.schedule.kappa(t, s), t, t - s > 0.5 * self.delta)

    def weighted(self, y_s: Tensor, target: Tensor, kappa: Tensor, t: Tensor, told: Tensor | None = None) -> Loss:
        """Return E w d(y_s, target) for a step kappa (b,), and the residuals that are worth telling."""
        distance = self.distance(y_s, target)
        weight = self.weight(distance.detach(), kappa, t, self.distance.degree)
        loss = (weight * distance).mean()
        residual = (y_s.detach() - target.detach()).square().flatten(1).mean(1).sqrt() / kappa
        if told is not None:
            residual = torch.where(told, residual, torch.nan)
        return Loss(loss, {"bootstrap": loss.detach()}, {"residual": (t, residual)})

    def boundary(self, y_T: Tensor, f_T: Tensor) -> Loss:
        """Return beta L_BC = beta E d(f(x_T, t_max), y_theta(eps, t_max)), Eq. 9."""
        edge = self.distance(y_T, f_T).mean()
        return Loss(self.boundary_weight * edge, {"boundary": edge.detach()})


def check_derivatives(teacher: Teacher, through_it: bool) -> None:
    """Refuse a teacher whose student has no derivative by t, or through which no gradients can be sent.

    Raises:
        BootdiffError: if its network takes integers as times; if ``through_it``, and it has weights in float16.
    """
    if teacher.schedule.integer_timesteps:
        raise BootdiffError(
            f"solver=jvp needs the derivative by t, and {teacher.name} is told its time in integers; take solver=euler."
        )
    if through_it:
        check_gradients(teacher, "jvp_full")
