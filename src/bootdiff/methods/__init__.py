"""Objectives: one file for each method, all with the contract of ``methods/base.py``."""

from bootdiff.core.turn import Turn
from bootdiff.methods.base import Learner, Loss, Networks, Objective, OneLearner, Rising, Stateless, Steady, learner_of
from bootdiff.methods.boot import Boot
from bootdiff.methods.denoising import Denoiser, Denoising, TextEncoder
from bootdiff.methods.method import Method, Stage, method
from bootdiff.methods.settings import DistillationSettings

__all__ = [
    "Boot",
    "Denoiser",
    "Denoising",
    "DistillationSettings",
    "Learner",
    "Loss",
    "Method",
    "Networks",
    "Objective",
    "OneLearner",
    "Rising",
    "Stage",
    "Stateless",
    "Steady",
    "TextEncoder",
    "Turn",
    "learner_of",
    "method",
]
