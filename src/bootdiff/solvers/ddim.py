"""DDIM: the teacher's own deterministic sampler, with eta = 0."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.schedules import Schedule, expand
from bootdiff.teachers.base import NO_CONDITION, Teacher


def ddim_step(x_t: Tensor, x_0: Tensor, t: Tensor, s: Tensor, schedule: Schedule) -> Tensor:
    """Return x_s (b, *shape) after one step from t to s < t (Eq. 2), given f(x_t, t) = ``x_0``; times are (b,)."""
    alpha_t, sigma_t = (expand(v, x_t) for v in schedule.alpha_sigma(t))
    alpha_s, sigma_s = (expand(v, x_t) for v in schedule.alpha_sigma(s))
    # Eq. 2
    return (sigma_s / sigma_t) * x_t + (alpha_s - alpha_t * sigma_s / sigma_t) * x_0


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
