"""Alarms that a run's looks raise by name before a collapse shows: brightness, colour saturation, variance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any, Literal, NamedTuple

#: shares of the teacher's deviation: a channel's mean drifts if it is so far off, and so much farther than at best
BRIGHTNESS, BRIGHTER = 0.25, 0.15
#: shares of the teacher's colour saturation: the same two limits for colours
COLOUR, MORE_COLOURFUL = 0.2, 0.1
#: growing variance: so many looks in a row with more variance each, up to so many times the teacher's
GROWING, GROWN = 4, 1.1


class Alarm(NamedTuple):
    """An alarm: the name of what goes wrong, and a sentence that says how far it went and what to do."""

    name: Literal["brightness drift", "saturation drift", "growing variance"]
    sentence: str


def brightness_gaps(look: Mapping[str, Any]) -> list[float]:
    """Return how much brighter each channel is than the teacher's, in units of the teacher's deviation of it."""
    return [
        (mean - own) / max(deviation, 1e-12)
        for mean, own, deviation in zip(look["mean"], look["teacher_mean"], look["teacher_deviation"], strict=True)
    ]


def relative_colour(look: Mapping[str, Any]) -> float | None:
    """Return the samples' colour saturation as a share of the teacher's; None for samples without three channels."""
    colour = look.get("colour")
    return None if colour is None else colour / max(look["teacher_colour"], 1e-12)


def relative_variance(look: Mapping[str, Any]) -> float:
    """Return the variance of all values as a share of the teacher's, averaged over channels."""
    pairs = zip(look["deviation"], look["teacher_deviation"], strict=True)
    return fmean((own / max(teachers, 1e-12)) ** 2 for own, teachers in pairs)


def alarm_of(looks: Sequence[Mapping[str, Any]]) -> Alarm | None:
    """Return the gravest alarm that a run's looks raise, or None; the looks are in order, the oldest first."""
    if not all("deviation" in look for look in looks):
        return None
    return _growing_variance(looks) or _brightness_drift(looks) or _saturation_drift(looks)


def _growing_variance(looks: Sequence[Mapping[str, Any]]) -> Alarm | None:
    shares = [relative_variance(look) for look in looks[-GROWING:]]
    # A student that is still on its way up to the teacher's variance is no cause for alarm.
    if not _rises(shares) or shares[-1] < GROWN or shares[-1] - shares[0] < (GROWN - 1) / 2:
        return None
    return Alarm(
        "growing variance",
        f"the variance of the samples grew with each of the last {GROWING} looks, from {shares[0]:.0%} to "
        f"{shares[-1]:.0%} of the teacher's, which is how a collapse begins; lower the learning rate, or update the "
        "fake more often.",
    )


def _brightness_drift(looks: Sequence[Mapping[str, Any]]) -> Alarm | None:
    gaps = [max(brightness_gaps(look), key=abs) for look in looks]
    if not _walks_away(gaps, BRIGHTNESS, BRIGHTER):
        return None
    return Alarm(
        "brightness drift",
        f"the samples are {abs(gaps[-1]):.0%} of a deviation {'brighter' if gaps[-1] > 0 else 'darker'} than the "
        f"teacher's ({abs(min(gaps, key=abs)):.0%} off at best); stop earlier, or lower the learning rate.",
    )


def _saturation_drift(looks: Sequence[Mapping[str, Any]]) -> Alarm | None:
    off = [share - 1 for look in looks if (share := relative_colour(look)) is not None]
    if not off or not _walks_away(off, COLOUR, MORE_COLOURFUL):
        return None
    return Alarm(
        "saturation drift",
        f"the colours are {1 + off[-1]:.0%} as saturated as the teacher's ({1 + min(off, key=abs):.0%} at best); "
        "stop earlier, or lower the guidance or the learning rate.",
    )


def _walks_away(offsets: Sequence[float], far: float, farther_than_best: float) -> bool:
    """Return whether an offset is large, larger than at best, and grew with each of the last looks."""
    sizes = [abs(offset) for offset in offsets]
    return sizes[-1] > far and sizes[-1] > min(sizes) + farther_than_best and _rises(sizes[-GROWING:])


def _rises(values: Sequence[float]) -> bool:
    return all(after > before for before, after in pairwise(values))
