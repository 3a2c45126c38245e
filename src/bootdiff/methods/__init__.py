"""Objectives: one file for each method, all with the contract of ``methods/base.py``."""

from bootdiff.core.turn import Turn
from bootdiff.methods.base import Learner, Loss, Networks, Objective, Stateless
from bootdiff.methods.boot import Boot
from bootdiff.methods.denoising import Denoiser, Denoising, TextEncoder

__all__ = [
    "Boot",
    "Denoiser",
    "Denoising",
    "Learner",
    "Loss",
    "Networks",
    "Objective",
    "Stateless",
    "TextEncoder",
    "Turn",
]
