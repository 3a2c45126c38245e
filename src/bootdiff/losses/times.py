"""Which times ``t`` a batch is trained at."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from bootdiff.core.turn import Turn


class TimeSampling(Protocol):
    """Draws t in [low, high], (b,)."""

    def __call__(self, turn: Turn, low: float, high: float) -> Tensor: ...


class UniformTime:
    """t ~ U(low, high) for every sample: the paper's choice (Eq. 8)."""

    def __call__(self, turn: Turn, low: float, high: float) -> Tensor:
        return low + (high - low) * turn.draw.uniform("t")


class ProgressiveTime:
    """One t that walks from high to low during training: the paper's ablation (Fig. 8 c/d), which does worse."""

    def __call__(self, turn: Turn, low: float, high: float) -> Tensor:
        return torch.full((len(turn.draw),), high - (high - low) * turn.progress, device=turn.draw.device)


TIME_SAMPLINGS: dict[str, TimeSampling] = {"uniform": UniformTime(), "progressive": ProgressiveTime()}
