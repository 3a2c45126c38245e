"""One network call at a fixed time, as three numbers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from bootdiff.teachers.limits import Limit

#: how far ``exportable_time`` may move a time, in units of t
REACH = 0.02
#: the smallest alpha that may be exported: float32 holds 1 − alpha² in steps of 6e-8
SMALLEST_HELD = 1e-3


@dataclass(frozen=True)
class OneCall:
    """What a student computes, ``x_0 = a eps + b network(scale · eps)``, whatever its teacher's conventions."""

    scale: float
    a: float
    b: float

    @property
    def alpha(self) -> float | None:
        """The alpha at which a stock variance-preserving scheduler gives ``eps`` the factor a; None where a is 1.

        Noise prediction has a = 1 / alpha, velocity prediction a = alpha; signal prediction ignores its alpha.
        """
        if self.a == 0:
            return math.sqrt(0.5)
        return None if self.a == 1 else min(self.a, 1 / self.a)


class StockCall(OneCall, ABC):
    """A call that can make the stock schedulers that compute the same; an adapter chooses one of them."""

    @abstractmethod
    def scheduler(self, kind: str, limit: Limit, t_max: float, **fields: Any) -> Any:
        """Return a variance-preserving scheduler with one timestep, 0: one step gives exactly x_0, more are refused.

        Args:
            kind: ``"DDIMScheduler"`` or ``"DDPMScheduler"``.
            fields: further fields of this class of scheduler.

        Raises:
            BootdiffError: for rectified flow, or a t_max whose alpha it cannot hold in float32.
        """

    @abstractmethod
    def flow_scheduler(self, limit: Limit) -> Any:
        """Return a flow scheduler with one step from sigma = 1: ``x_0 = x_T − out``.

        Raises:
            BootdiffError: for a call of another kind, or where x_0 is to be clipped.
        """


def exportable_time(alpha_at: Callable[[float], float | None], t: float) -> float:
    """Return the time next to ``t`` whose 1 − alpha² is a float32 number: a scheduler's beta can hold nothing finer.

    Without this, an exported noise-prediction student with alpha 0.02 would be off by 4e-5 of its range.

    Args:
        alpha_at: a function from a time to ``OneCall.alpha``, which falls with t.
        t: the time, in [0, 1].
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
