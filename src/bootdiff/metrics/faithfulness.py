"""How often a conditioned sample is what was asked for."""

from __future__ import annotations

from bootdiff.metrics.estimate import Estimate


def share(correct: int, asked: int) -> Estimate:
    """The share of samples, in [0, 1], that a classifier finds in the class that was asked for.

    Args:
        correct: samples found in their class.
        asked: samples in all.

    Raises:
        BootdiffError: if nothing was asked, or more was correct than asked.
    """
    return Estimate.of_share(correct, asked, "share of samples in the class asked for")
