"""Reading the output of a student's network as x_0, at any time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.schedules import expand

if TYPE_CHECKING:
    from bootdiff.students.base import Student


def read(student: Student, x_t: Tensor, t: Tensor, target: Tensor | None, condition: Condition) -> Tensor:
    """Return x_0 = a x_t + b network(scale · x_t), (b, *shape) in float32.

    Args:
        x_t: noisy samples, (b, *shape).
        t: their times, (b,).
        target: the times, (b,), that a network with an input for a target time is told; None for another network.
    """
    scale, a, b = (expand(v.to(x_t.device, torch.float32), x_t) for v in student.reading.factors(t))
    timestep = student.schedule.timestep
    out = student.network(scale * x_t, timestep(t), None if target is None else timestep(target), condition)
    return a * x_t.float() + b * out.float()
