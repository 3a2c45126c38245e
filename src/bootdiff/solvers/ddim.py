"""DDIM: the teacher's own deterministic sampler, with eta = 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.schedules import Schedule, expand
from bootdiff.teachers.base import NO_CONDITION, Teacher


class Level(NamedTuple):
    """How much of the image and of the noise a noisy sample holds: alpha and sigma, each (b, 1, …)."""

    alpha: Tensor
    sigma: Tensor

    @classmethod
    def at(cls, t: Tensor, schedule: Schedule, like: Tensor, image: Tensor | None = None) -> Level:
        """Return the levels at times t (b,), in a shape that broadcasts over ``like`` (b, *shape).

        Args:
            image: where it is True, (b,), the level is that of the image itself, (1, 0), and not of t.
        """
        alpha, sigma = schedule.alpha_sigma(t)
        if image is not None:
            alpha, sigma = torch.where(image, 1.0, alpha), torch.where(image, 0.0, sigma)
        return cls(expand(alpha, like), expand(sigma, like))


def step_between(x_t: Tensor, x_0: Tensor, here: Level, there: Level) -> Tensor:
    """Return x_s, (b, *shape), after one step (Eq. 2) from the level of x_t to another one, given f(x_t, t) = x_0."""
    # Eq. 2
    return (there.sigma / here.sigma) * x_t + (there.alpha - here.alpha * there.sigma / here.sigma) * x_0


def signal_of_step(x_t: Tensor, x_s: Tensor, here: Level, there: Level) -> Tensor:
    """Return the x_0, (b, *shape), by which one step (Eq. 2) leads from x_t to x_s.

    It is the target of progressive distillation (Salimans & Ho, arXiv 2202.00512, Appendix G).
    """
    ratio = there.sigma / here.sigma
    return (x_s - ratio * x_t) / (there.alpha - ratio * here.alpha)


def ddim_step(x_t: Tensor, x_0: Tensor, t: Tensor, s: Tensor, schedule: Schedule) -> Tensor:
    """Return x_s (b, *shape) after one step from t to s < t (Eq. 2), given f(x_t, t) = ``x_0``; times are (b,)."""
    return step_between(x_t, x_0, Level.at(t, schedule, x_t), Level.at(s, schedule, x_t))


def teacher_step(
    teacher: Teacher, x_t: Tensor, t: Tensor, s: Tensor, condition: Condition, second_order: bool = False
) -> Tensor:
    """Return x_s, (b, *shape), after one step of the teacher's ODE from x_t (b, *shape) at t (b,) to s (b,).

    Args:
        second_order: whether it is Heun's step, in the exponential form of Eq. 16, and not DDIM's; it asks the teacher
            once more, at s.
    """
    x_0 = teacher.x0(x_t, t, condition)
    x_s = ddim_step(x_t, x_0, t, s, teacher.schedule)
    if not second_order:
        return x_s
    return ddim_step(x_t, (x_0 + teacher.x0(x_s, s, condition)) / 2, t, s, teacher.schedule)


def trailing_times(steps: int, t_min: float, t_max: float) -> list[float]:
    """Return ``steps`` evenly spaced times from t_max down; the last is a step above t_min ("trailing" spacing)."""
    return [t_max - i * (t_max - t_min) / steps for i in range(steps)]


@torch.no_grad()
def ddim(teacher: Teacher, eps: Tensor, times: Sequence[float], condition: Condition = NO_CONDITION) -> Tensor:
    """Return the teacher's image after one call at each of the falling ``times``: the last call's x_0, (b, *shape).

    Args:
        eps: the starting noises, (b, *shape); sampling starts at ``nu · eps``.
    """
    x = teacher.schedule.start_scale(times[0]) * eps
    batch = eps.shape[0]
    for here, there in zip(times, [*times[1:], None], strict=True):
        t = torch.full((batch,), here, device=eps.device)
        x_0 = teacher.x0(x, t, condition)
        if there is None:
            return x_0
        x = ddim_step(x, x_0, t, torch.full_like(t, there), teacher.schedule)
    raise ValueError("times is empty")
