"""A method's settings, made longer or shorter so that its run costs a budget.

What is stored (pairs, trajectories) grows and shrinks with the training, so that its share of the passes stays as the
recipe has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bootdiff.core.errors import BootdiffError
from bootdiff.methods.settings import DistillationSettings
from bootdiff.methods.staged import TwoStages

#: the settings that say how long a training is, and how much is made for it; all stages and rounds have their own
LENGTHS = ("steps", "pairs", "fake_warmup", "warmup_steps")
#: how near to the budget the passes come, and in how many trials
NEAR, TRIALS = 0.005, 16
#: the trials in which the cost is taken to grow in proportion; then the interval that is left is halved
STRAIGHT = 4

Words = Mapping[str, Any]


def scaled(words: Words, factor: float) -> dict[str, Any]:
    """Return settings whose lengths are multiplied by a factor, those of stages and rounds among them."""
    found: dict[str, Any] = {}
    for key, value in words.items():
        if isinstance(value, Mapping):
            found[key] = scaled(value, factor)
        elif key in LENGTHS and isinstance(value, int | float):
            found[key] = max(1, round(value * factor)) if value else value
        else:
            found[key] = value
    return found


def without_lengths(words: Words) -> dict[str, Any]:
    """Return settings without those that a budget decides, in stages and rounds as well."""
    kept = {key: value for key, value in words.items() if key not in LENGTHS}
    return {key: without_lengths(value) if isinstance(value, Mapping) else value for key, value in kept.items()}


def within(
    words: Words,
    passes: float,
    make: Callable[[Words], DistillationSettings],
    count: Callable[[DistillationSettings], float],
) -> dict[str, Any]:
    """Return the settings, made longer or shorter so that a run costs as many passes as it may, and not one more.

    Args:
        words: the recipe; each length that it leaves out must be in it by now (``with_lengths``).
        passes: the budget.
        make, count: from words to settings, and from settings to the passes of a run.

    Raises:
        BootdiffError: if even the shortest run costs more.
    """
    low, high, factor = 0.0, float("inf"), 1.0
    best: dict[str, Any] | None = None
    for trial in range(TRIALS):
        asked = scaled(words, factor)
        cost = _cost(asked, make, count)
        if cost is not None and cost <= passes:
            low, best = factor, asked
            if cost >= (1 - NEAR) * passes:
                break
        else:
            high = factor
        # In proportion, and not to the edge itself, which rounding misses.
        guess = (1 - NEAR / 2) * factor * passes / cost if cost else 2 * factor
        between = low < guess < high and (trial < STRAIGHT or high == float("inf"))
        factor = guess if between else (low + high) / 2
    if best is None:
        least = _cost(scaled(words, 0), make, count)
        costs = "" if least is None else f", which costs {least:,.0f}"
        raise BootdiffError(f"{passes:,.0f} passes are too few for its shortest run{costs}; give more.")
    return best


def _cost(
    words: Words, make: Callable[[Words], DistillationSettings], count: Callable[[DistillationSettings], float]
) -> float | None:
    """Return what a run costs; None where settings that are so short do not go together."""
    try:
        return count(make(words))
    except BootdiffError:
        return None


def with_lengths(words: Words, settings: DistillationSettings) -> dict[str, Any]:
    """Return the recipe with the lengths that it leaves to the method's defaults, so that they are scaled, too."""
    own = {key: getattr(settings, key) for key in LENGTHS if getattr(settings, key, None)}
    if not isinstance(settings, TwoStages):
        return {**own, **words}
    name = settings.before.name
    return {**own, **words, name: with_lengths(words.get(name, {}), settings.first)}
