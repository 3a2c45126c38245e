"""Figures that others add: functions of the samples' features and the reference's.

A package adds its own by an entry point of the group ``bootdiff.metrics``, and a program by ``register_metric``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor

from bootdiff.core.errors import BootdiffError, first_line, shown
from bootdiff.core.plugins import loaded, named
from bootdiff.metrics.estimate import Estimate
from bootdiff.system.out_of_memory import let_pass

GROUP = "bootdiff.metrics"


@dataclass(frozen=True)
class Metric:
    """A figure of samples in a feature space.

    Args:
        name: its key in the files of figures, such as ``"mean_distance"``.
        title: its heading in tables.
        measure: a function from the features of samples (n, d) and of the reference (m, d), at most 10,000 of each, to
            the figure with its interval.
        format: how its value is written, such as ``".3f"``.
    """

    name: str
    title: str
    measure: Callable[[Tensor, Tensor], Estimate]
    format: str = ".3f"

    def of(self, samples: Tensor, reference: Tensor) -> Estimate:
        """Return the figure of samples (n, d) against a reference (m, d).

        Raises:
            BootdiffError: if it cannot be measured, or is no finite number; the message names the metric.
        """
        try:
            found = self.measure(samples, reference)
            value = float(found.value) if isinstance(found, Estimate) else math.nan
        except Exception as error:  # somebody else's function may raise anything
            let_pass(error)
            raise BootdiffError(f"metric {self.name} raised {type(error).__name__}: {first_line(error)}") from error
        if not math.isfinite(value):
            raise BootdiffError(f"metric {self.name} should return an Estimate of a finite value, got {shown(found)}.")
        return found


_registered: dict[str, Metric] = {}


def register_metric(metric: Metric) -> Metric:
    """Make every table have this figure, and return it.

    Raises:
        BootdiffError: if it is no ``Metric``.
    """
    if not isinstance(metric, Metric):
        raise BootdiffError(f"expected a bootdiff.Metric, got {type(metric).__name__}.")
    _registered[metric.name] = metric
    return metric


def further_metrics() -> Mapping[str, Metric]:
    """Return the figures that others have added, by name."""
    _load_entry_points()
    return _registered


@lru_cache
def _load_entry_points() -> None:
    for entry in named(GROUP).values():
        register_metric(loaded(entry, "metric"))
