"""How a stock scheduler expresses a student's one call: its single timestep's step returns exactly x_0."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from bootdiff.core.errors import BootdiffError
from bootdiff.teachers.adapters.base import Adapter
from bootdiff.teachers.limits import Limit, NoLimit
from bootdiff.teachers.one_call import OneCall, StockCall

#: the shift of the one-step flow scheduler, which makes its second sigma 1 − 1e-5
STANDSTILL = 316.0


def scheduler_for(adapter: Adapter, call: OneCall, limit: Limit, t_max: float, near: bool = False) -> Any:
    """Return the family's scheduler with a single timestep, at t_max.

    Args:
        near: whether a factor of the noise that is off by less than 2e-5 will do. A path student's t_max moves to where
            it is held, and that of a student of another kind need not.

    Raises:
        BootdiffError: if no stock scheduler can express this call.
    """
    return adapter.scheduler(ExportedCall(call.scale, call.a, call.b, near), limit, t_max)


def output_scale(call: OneCall) -> float:
    """Return the factor by which the network's output must be multiplied for that scheduler.

    It is 1 for the kinds of network that the scheduler knows.
    """
    if call.a == 0:
        return call.b
    if call.a == 1:  # a flow scheduler's step from sigma = 1
        return -call.b
    return -call.b / math.sqrt(abs(1 - call.a**2))


@dataclass(frozen=True)
class ExportedCall(StockCall):
    """A student's call as diffusers' own schedulers express it.

    Args:
        near: whether a factor of the noise that is off by less than 2e-5 will do.
    """

    near: bool = False

    def scheduler(self, kind: str, limit: Limit, t_max: float, **fields: Any) -> Any:
        """Return a variance-preserving scheduler whose one beta is chosen so that its alpha is the call's."""
        import diffusers

        own = {"DDIMScheduler": {"set_alpha_to_one": True}}.get(kind, {})
        words = {"steps_offset": 0, "timestep_spacing": "trailing", **own, **limit.scheduler_fields(), **fields}
        return getattr(diffusers, kind)(
            num_train_timesteps=1,
            trained_betas=[self._beta(t_max)],
            prediction_type="sample" if self.a == 0 else "epsilon" if self.a > 1 else "v_prediction",
            **words,
        )

    def flow_scheduler(self, limit: Limit) -> Any:
        """Return a flow scheduler with one step that matters; such a scheduler cannot refuse more steps.

        Its shift packs all steps but the last between sigma = 1 and 1 − 1e-5, where next to nothing moves, and the last
        step leads to the image. More steps therefore cost time and change nothing.
        """
        from diffusers import FlowMatchEulerDiscreteScheduler

        if self.a != 1 or not isinstance(limit, NoLimit):
            raise BootdiffError("a flow pipeline can be exported with a flow model's scheduler only, without clipping.")
        return FlowMatchEulerDiscreteScheduler(num_train_timesteps=2, shift=STANDSTILL)

    def _beta(self, t_max: float) -> float:
        """Return the beta of the one step.

        It is refused for rectified flow, and where float32 would hold another alpha.
        """
        if self.alpha is None:
            raise BootdiffError(
                "a student that adds its noise as it is (a flow model's) cannot be exported to a pipeline whose "
                "scheduler is variance-preserving; flow models are supported as StableDiffusion3Pipeline and "
                "FluxPipeline."
            )
        beta = torch.tensor(1 - self.alpha**2, dtype=torch.float64)
        held = (1 - beta.float().double()).sqrt().item()
        near = self.near and self.a < 1 and abs(held - self.alpha) < 2e-5
        if abs(held / self.alpha - 1) > 1e-4 and not near:
            raise BootdiffError(
                f"a stock scheduler would hold alpha = {held:.4g} where t_max = {t_max:g} needs {self.alpha:.4g}; "
                "lower t_max, or from Python take teacher.nearest_start(t_max)."
            )
        return beta.item()
