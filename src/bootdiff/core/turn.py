"""A learner's turn within a step: what a loss may depend on besides its networks and its batch."""

from __future__ import annotations

from dataclasses import dataclass

from bootdiff.core.randomness import Draw


@dataclass(frozen=True)
class Turn:
    """One learner's turn within a step.

    Args:
        name: the learner's name.
        step: the number of the step, counted from 0.
        progress: the part of the training that is over, step / steps, in [0, 1).
        draw: the random values for this slice of the batch.
    """

    name: str
    step: int
    progress: float
    draw: Draw
