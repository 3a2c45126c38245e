"""Faithfulness: how often a sample shows the class that was asked for."""

from __future__ import annotations

from bootdiff.metrics.estimate import Estimate


def share(correct: int, asked: int) -> Estimate:
    """Return the share of samples, in [0, 1], that a classifier finds in the class that was asked for.

    Args:
        correct: the number of samples found in their class.
        asked: the number of all samples.

    Raises:
        BootdiffError: if nothing was asked, or more was correct than asked.
    """
    return Estimate.of_share(correct, asked, "share of samples in the class asked for")
