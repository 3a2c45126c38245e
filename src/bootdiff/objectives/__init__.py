"""Objectives: one method a file, all on the contract of ``objectives/base.py``."""

from bootdiff.objectives.base import Learner, Loss, Networks, Objective, Reset, Stateless, Turn
from bootdiff.objectives.boot import Boot
from bootdiff.objectives.denoising import Denoiser, Denoising, TextEncoder

__all__ = [
    "Boot",
    "Denoiser",
    "Denoising",
    "Learner",
    "Loss",
    "Networks",
    "Objective",
    "Reset",
    "Stateless",
    "TextEncoder",
    "Turn",
]
