"""Noise schedules: alpha_t, sigma_t, lambda_t and kappa."""

from bootdiff.schedules.base import Schedule, VariancePreserving, check_times, expand, exportable_time
from bootdiff.schedules.continuous import Cosine, Linear, RectifiedFlow, VarianceExploding
from bootdiff.schedules.table import BetaTable

__all__ = [
    "BetaTable",
    "Cosine",
    "Linear",
    "RectifiedFlow",
    "Schedule",
    "VarianceExploding",
    "VariancePreserving",
    "check_times",
    "expand",
    "exportable_time",
]
