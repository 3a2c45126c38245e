"""The times ``t`` at which a batch is trained."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from bootdiff.core.turn import Turn


class TimeSampling(Protocol):
    """A way to draw the times of a batch: (b,) values in [low, high]."""

    def __call__(self, turn: Turn, low: float, high: float) -> Tensor: ...


class UniformTime:
    """Draws t ~ U(low, high) for every sample: the paper's choice (Eq. 8)."""

    def __call__(self, turn: Turn, low: float, high: float) -> Tensor:
        return low + (high - low) * turn.draw.uniform("t")


class ProgressiveTime:
    """Gives all samples one t, which falls from high to low during training.

    It is the paper's ablation (Fig. 8 c/d), and does worse than uniform times.
    """

    def __call__(self, turn: Turn, low: float, high: float) -> Tensor:
        return torch.full((len(turn.draw),), high - (high - low) * turn.progress, device=turn.draw.device)


TIME_SAMPLINGS: dict[str, TimeSampling] = {"uniform": UniformTime(), "progressive": ProgressiveTime()}
