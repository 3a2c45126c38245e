"""A figure with what is needed to judge it: how it was estimated, from how many samples, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from bootdiff.core.errors import BootdiffError

#: the number of standard errors on either side of a 95 % interval
Z = 1.96


@dataclass(frozen=True)
class Estimate:
    """A figure, its sample size and its interval.

    Args:
        value: the figure.
        num: the number of samples that it was made from.
        estimator: how the figure was made, in a few words; after a semicolon, how its interval was made.
        low, high: the ends of the interval, of 95 % unless ``estimator`` says otherwise; None where there is no
            interval.
    """

    value: float
    num: int
    estimator: str
    low: float | None = None
    high: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the fields as a dictionary that can be written as JSON."""
        return asdict(self)

    @classmethod
    def around(cls, value: float, error: float | None, num: int, estimator: str, lowest: float = -math.inf) -> Estimate:
        """Return a value with an interval of ± 1.96 standard errors; without one where the error is None.

        Args:
            lowest: the lowest value that the figure can have; the interval ends there.
        """
        if error is None:
            return cls(value, num, estimator)
        low = min(value, max(lowest, value - Z * error))
        return cls(value, num, f"{estimator}; ± {Z} standard errors", low, value + Z * error)

    @classmethod
    def mean_of(cls, estimates: Sequence[Estimate]) -> Estimate:
        """Return the mean of one figure over several noise seeds, each with its own samples.

        For n ≥ 3 seeds the interval is the mean ± 1.96 · s / √n, where s is the seeds' standard deviation; it uses the
        normal quantile, so it is a little narrow for few seeds. For two seeds it goes from the smaller figure to the
        larger. One seed keeps its own interval. Seeds differ by their samples only, so a bias that they share is in no
        interval.

        Raises:
            BootdiffError: if there are no estimates.
        """
        if not estimates:
            raise BootdiffError("expected the figures of at least one noise seed, got none.")
        first, values, count = estimates[0], [e.value for e in estimates], len(estimates)
        if count == 1:
            return first
        num, words = sum(e.num for e in estimates), f"{first.estimator.partition(';')[0]}, mean of {count} noise seeds"
        if count == 2:
            return cls(fmean(values), num, f"{words}; smallest and largest", min(values), max(values))
        return cls.around(fmean(values), stdev(values) / math.sqrt(count), num, words)

    @classmethod
    def of_samples(cls, values: Sequence[float], estimator: str) -> Estimate:
        """Return the mean of values, one for each sample, ± 1.96 · s / √n; one sample has no interval.

        Raises:
            BootdiffError: if there are no values.
        """
        if not values:
            raise BootdiffError("expected the values of at least one sample, got none.")
        error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
        return cls.around(fmean(values), error, len(values), estimator)

    @classmethod
    def of_share(cls, hits: int, num: int, estimator: str) -> Estimate:
        """Return the share ``hits / num`` with Wilson's score interval, which stays within [0, 1].

        Raises:
            BootdiffError: if ``num`` is not positive, or ``hits`` is not in [0, ``num``].

        Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference".
        """
        if num < 1 or not 0 <= hits <= num:
            raise BootdiffError(f"expected a share of at least one sample, got {hits} of {num}.")
        share, spread = hits / num, Z**2 / num
        centre = (share + spread / 2) / (1 + spread)
        half = math.sqrt(spread * share * (1 - share) + spread**2 / 4) / (1 + spread)
        low, high = min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))
        return cls(share, num, f"{estimator}; Wilson interval", low, high)
