"""One network call at a fixed time, as three numbers, and how a stock scheduler says the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from bootdiff.core.errors import BootdiffError
from bootdiff.teachers.limits import Limit, NoLimit

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
        if self.a == 1:  # a flow scheduler's step from sigma = 1
            return -self.b
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
            "a student that adds its noise as it is (a flow model's) cannot be exported to a pipeline whose scheduler "
            "is variance-preserving; flow models are supported as StableDiffusion3Pipeline and FluxPipeline."
        )
    beta = torch.tensor(1 - call.alpha**2, dtype=torch.float64)
    held = (1 - beta.float().double()).sqrt().item()
    if abs(held / call.alpha - 1) > 1e-4:
        raise BootdiffError(
            f"a stock scheduler would hold alpha = {held:.4g} where t_max = {t_max:g} needs {call.alpha:.4g}; lower "
            "t_max, or from Python take teacher.nearest_start(t_max)."
        )
    return beta.item()


def stock_scheduler(kind: str, call: OneCall, limit: Limit, t_max: float, **fields: Any) -> Any:
    """A variance-preserving scheduler with a single timestep, 0: one step returns exactly x_0, more are refused.

    Args:
        kind: ``"DDIMScheduler"`` or ``"DDPMScheduler"``.
        fields: of this class of scheduler.

    Raises:
        BootdiffError: for rectified flow, or a t_max whose alpha it cannot hold in float32.
    """
    import diffusers

    own = {"DDIMScheduler": {"set_alpha_to_one": True}}.get(kind, {})
    words = {"steps_offset": 0, "timestep_spacing": "trailing", **own, **limit.scheduler_fields(), **fields}
    return getattr(diffusers, kind)(
        num_train_timesteps=1,
        trained_betas=[check_exportable(call, t_max)],
        prediction_type=call.prediction_type,
        **words,
    )


#: of the one-step flow scheduler: its second sigma is 1 − 1e-5
STANDSTILL = 316.0


def flow_scheduler(call: OneCall, limit: Limit) -> Any:
    """A flow scheduler with one step from sigma = 1: ``x_0 = x_T − out``.

    It cannot refuse more steps. Its shift packs all of them between sigma = 1 and 1 − 1e-5, where next to nothing
    moves, and the last one leads to the image: they cost time and change nothing.

    Raises:
        BootdiffError: for a call of another kind, or where x_0 is to be clipped.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    if call.a != 1 or not isinstance(limit, NoLimit):
        raise BootdiffError("a flow pipeline can be exported with a flow model's scheduler only, without clipping.")
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=2, shift=STANDSTILL)
