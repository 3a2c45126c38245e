"""How a network's output is read as x_0, at any time of a schedule."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bootdiff.core.device import in_float64
from bootdiff.schedules import Schedule
from bootdiff.teachers.one_call import OneCall
from bootdiff.teachers.prediction import Prediction


@dataclass(frozen=True)
class Reading:
    """The reading ``x_0 = a x_t + b network(scale · x_t)`` of a network's output.

    Args:
        schedule: the noise schedule.
        prediction: what the output means; None where it is x_0 itself.
    """

    schedule: Schedule
    prediction: Prediction | None = None

    def factors(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (scale, a, b) at the times t (b,), each (b,) in float64."""
        if self.prediction is None:
            one = torch.ones_like(in_float64(t))
            return one, torch.zeros_like(one), one
        alpha, sigma = self.schedule.split(self.schedule.lambda_(t))
        return self.prediction.input_scale(alpha, sigma), *self.prediction.factors(alpha, sigma)

    def at(self, t: float) -> OneCall:
        """Return x_0 of a call from pure noise at one time t, as a function of eps."""
        scale, a, b = (value.item() for value in self.factors(torch.tensor([t])))
        start = self.schedule.start_scale(t)
        return OneCall(start * scale, start * a, b)
