"""Noise schedules: alpha_t, sigma_t, lambda_t and kappa."""

from bootdiff.schedules.base import Schedule, VariancePreserving, check_times, expand
from bootdiff.schedules.continuous import EDM, Cosine, Linear, RectifiedFlow, SigmaTime, VarianceExploding
from bootdiff.schedules.table import BetaTable

__all__ = [
    "EDM",
    "BetaTable",
    "Cosine",
    "Linear",
    "RectifiedFlow",
    "Schedule",
    "SigmaTime",
    "VarianceExploding",
    "VariancePreserving",
    "check_times",
    "expand",
]
