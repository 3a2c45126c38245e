"""One network call at a fixed time, as three numbers, and how a stock scheduler says the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from bootdiff.errors import BootdiffError

#: how far ``exportable_time`` may move a time
REACH = 0.02
#: the smallest alpha that may be exported: float32 holds 1 − alpha² in steps of 6e-8
SMALLEST_HELD = 1e-3


@dataclass(frozen=True)
class OneCall:
    """``x_0 = a eps + b network(scale · eps)``: what a student computes, whatever the teacher's conventions."""

    scale: float
    a: float
    b: float

    @property
    def alpha(self) -> float | None:
        """The alpha at which a stock variance-preserving scheduler gives ``eps`` the factor a; none at a = 1.

        Noise prediction has a = 1 / alpha, velocity prediction a = alpha; signal prediction ignores its alpha.
        """
        if self.a == 0:
            return math.sqrt(0.5)
        return None if self.a == 1 else min(self.a, 1 / self.a)

    @property
    def prediction_type(self) -> str:
        """What a stock scheduler calls it."""
        return "sample" if self.a == 0 else "epsilon" if self.a > 1 else "v_prediction"

    @property
    def output_scale(self) -> float:
        """What the network's output must be multiplied by for that scheduler; 1 for its own kinds of network."""
        if self.a == 0:
            return self.b
        return -self.b / math.sqrt(abs(1 - self.a**2))


def exportable_time(alpha_at: Callable[[float], float | None], t: float) -> float:
    """The time next to ``t`` whose 1 − alpha² is a float32 number, which is all that a scheduler's beta can hold.

    Without this, an exported noise-prediction student with alpha 0.02 would be off by 4e-5 of its range.

    Args:
        alpha_at: ``OneCall.alpha`` by time; it falls with t.
        t: in [0, 1].
    """
    alpha = alpha_at(t)
    if alpha is None or not 0 < alpha < 1:
        return t
    beta = torch.tensor(1 - alpha**2, dtype=torch.float64)
    wanted = beta.float()
    if t >= 1 and wanted.double() > beta:
        wanted = torch.nextafter(wanted, torch.tensor(0.0))
    low, high = max(0.0, t - REACH), min(1.0, t + REACH)
    for _ in range(60):
        middle = (low + high) / 2
        here = alpha_at(middle)
        below = here is not None and 1 - here**2 < float(wanted.double())
        low, high = (middle, high) if below else (low, middle)
    return low


def check_exportable(call: OneCall, t_max: float) -> float:
    """The beta with which a stock scheduler says this call.

    Raises:
        BootdiffError: for rectified flow, whose ``x_T − t out`` no variance-preserving scheduler can say, or where the
            float32 beta stands for another alpha.
    """
    if call.alpha is None:
        raise BootdiffError(
            "a student that adds its noise as it is (a flow model, or no noise at t_max) cannot be exported."
        )
    beta = torch.tensor(1 - call.alpha**2, dtype=torch.float64)
    held = (1 - beta.float().double()).sqrt().item()
    if abs(held / call.alpha - 1) > 1e-4:
        raise BootdiffError(
            f"a stock scheduler would hold alpha = {held:.4g} where t_max = {t_max:g} needs {call.alpha:.4g}; lower "
            "t_max, or from Python take teacher.nearest_start(t_max)."
        )
    return beta.item()
