"""The Signal-ODE (Eq. 6), solved along one noise.

``dy/dt = −lambda'_t (f(x_t, t) − y_t)`` with ``x_t = alpha_t y_t + sigma_t eps`` and the same eps all the way.

Source: docs/method.md, "The signal part and its ODE" and "Solving the Signal-ODE".
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.schedules import Schedule, expand
from bootdiff.teachers.base import NO_CONDITION, Teacher


def noisy(y: Tensor, eps: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """Return the noisy images x̂_t = alpha_t y + sigma_t eps, (b, ...)."""
    alpha, sigma = (expand(v, y) for v in schedule.alpha_sigma(t))
    return alpha * y + sigma * eps


class Solver(Protocol):
    """A method that takes one step of the Signal-ODE from t to s < t."""

    def step(
        self, teacher: Teacher, y_t: Tensor, f_t: Tensor, eps: Tensor, t: Tensor, s: Tensor, condition: Condition
    ) -> Tensor:
        """Return y_s (b, ...), given y_t and the teacher's prediction f_t = f(x̂_t, t), which the caller has made."""
        ...


class Euler:
    """The solver of first order, which makes no further call of the teacher."""

    name = "euler"

    def step(
        self, teacher: Teacher, y_t: Tensor, f_t: Tensor, eps: Tensor, t: Tensor, s: Tensor, condition: Condition
    ) -> Tensor:
        """Return y_s = y_t + kappa (f_t − y_t), (b, ...)."""
        kappa = expand(teacher.schedule.kappa(t, s), y_t)
        # Eq. 5
        return y_t + kappa * (f_t - y_t)


class Heun:
    """The solver of second order, which makes one more call of the teacher."""

    name = "heun"

    def step(
        self, teacher: Teacher, y_t: Tensor, f_t: Tensor, eps: Tensor, t: Tensor, s: Tensor, condition: Condition
    ) -> Tensor:
        """Return y_s = y_t + kappa ((f_t + f_s) / 2 − y_t), (b, ...), with f_s at the value of an Euler step."""
        schedule = teacher.schedule
        kappa = expand(schedule.kappa(t, s), y_t)
        y_1 = y_t + kappa * (f_t - y_t)
        f_s = teacher.x0(noisy(y_1, eps, s, schedule), s, condition)
        # Differs from the paper: Eq. 16 in its exponential form, because the printed one needs the derivative of
        # lambda to be second order and is undefined at t = 1 of the flow path.
        return y_t + kappa * ((f_t + f_s) / 2 - y_t)


SOLVERS: dict[str, Solver] = {"euler": Euler(), "heun": Heun()}


@torch.no_grad()
def solve(
    teacher: Teacher, eps: Tensor, times: Sequence[float], solver: Solver, condition: Condition = NO_CONDITION
) -> list[Tensor]:
    """Return y at each of the falling ``times``, which begin at t_max, from the boundary ``y = f(x_T, t_max)`` (Eq. 9).

    Args:
        eps: the noises, (b, *shape).

    Returns:
        One tensor (b, *shape) a time.
    """
    steps = [torch.full((eps.shape[0],), time, device=eps.device) for time in times]
    y = teacher.x0(teacher.schedule.start_scale(times[0]) * eps, steps[0], condition)
    path = [y]
    for t, s in pairwise(steps):
        f_t = teacher.x0(noisy(y, eps, t, teacher.schedule), t, condition)
        y = solver.step(teacher, y, f_t, eps, t, s, condition)
        path.append(y)
    return path


def even_times(steps: int, t_min: float, t_max: float) -> list[float]:
    """Return ``steps`` + 1 evenly spaced times from t_max to t_min."""
    return [t_max + i * (t_min - t_max) / steps for i in range(steps)] + [t_min]
