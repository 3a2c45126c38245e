"""The search for the times at which a consistency student is called: a ternary search on the Fréchet distance.

Song et al., arXiv 2303.01469, Section 3: one time after another, each with the earlier ones held. A ternary search
finds the lowest value of a function that falls and then rises. Whether this one does is looked at, and said.
Source: docs/method.md, "More than one call".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from bootdiff.core.errors import BootdiffError
from bootdiff.evaluation.curve import Chooser, choice_seed
from bootdiff.evaluation.engine import Entry, Noises
from bootdiff.samplers.base import Sampler
from bootdiff.samplers.consistency import MultistepConsistency, possible_times
from bootdiff.samplers.rows import CONSISTENCY, SEARCHED, Candidate
from bootdiff.solvers import even_times
from bootdiff.students.consistency import ConsistencyStudent
from bootdiff.system.processes import word_of_first

#: the number of times among which the next one is searched, and of those that are looked at before, evenly spaced
CANDIDATES, PROBES = 65, 5
#: the largest number of samples of each look
SAMPLES = 2000
#: the share by which distances differ by chance, so that a smaller fall within a rise counts for nothing
NOISE = 0.02
#: the most calls whose times are searched
MOST_CALLS = 8


@dataclass(frozen=True)
class Found:
    """What a search has found.

    Args:
        times: falling times, the first of which is where sampling starts.
        distance: the distance there, on the noises of the search.
        tried: every sequence of times that was looked at, with its distance.
        single: for each time that was searched, whether the distance fell and then rose, but for noise.
    """

    times: tuple[float, ...]
    distance: float
    tried: dict[tuple[float, ...], float]
    single: tuple[bool, ...]

    @property
    def as_json(self) -> dict[str, Any]:
        """The search as the JSON of an evaluation holds it."""
        return {
            "times": list(self.times),
            "frechet_distance": _finite(self.distance),
            "single_minimum": list(self.single),
            "tried": [
                {"times": list(times), "frechet_distance": _finite(distance)} for times, distance in self.tried.items()
            ],
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def search_times(distance: Callable[[tuple[float, ...]], float], possible: Sequence[float], calls: int) -> Found:
    """Return the times of so many calls at which a distance is least, found one after the other.

    Args:
        distance: the distance of samples that are made at falling times.
        possible: the falling times from which they are taken; the first one is where sampling starts.
        calls: the number of times.

    Raises:
        BootdiffError: if fewer times are possible.
    """
    if calls > len(possible):
        raise BootdiffError(
            f"{calls} calls are more than the {len(possible)} times at which the student can be called."
        )
    tried: dict[tuple[float, ...], float] = {}

    def at(times: tuple[float, ...]) -> float:
        if times not in tried:
            tried[times] = distance(times)
        return tried[times]

    found: tuple[float, ...] = (possible[0],)
    first, single = 1, []
    at(found)
    for call in range(1, calls):
        last = len(possible) - (calls - call)  # so that times are left for the calls after this one
        numbers, held = _thinned(first, last), found
        looked = {number: at((*held, possible[number])) for number in _searched(numbers, held, possible, at)}
        best = min(looked, key=lambda number: looked[number])
        single.append(_falls_and_rises([looked[number] for number in sorted(looked)]))
        found, first = (*held, possible[best]), best + 1
    return Found(found, tried[found], tried, tuple(single))


def _searched(
    numbers: Sequence[int], held: tuple[float, ...], possible: Sequence[float], at: Callable[[tuple[float, ...]], float]
) -> Iterator[int]:
    """Yield the numbers of the times that are looked at: evenly spaced ones, and those of a ternary search."""
    for probe in range(PROBES):
        yield numbers[probe * (len(numbers) - 1) // (PROBES - 1)]
    low, high = 0, len(numbers) - 1
    while high - low > 2:
        left, right = low + (high - low) // 3, high - (high - low) // 3
        yield from (numbers[left], numbers[right])
        if at((*held, possible[numbers[left]])) <= at((*held, possible[numbers[right]])):
            high = right
        else:
            low = left
    yield from numbers[low : high + 1]


def _thinned(first: int, last: int) -> list[int]:
    """Return numbers from the first to the last, both included, at most CANDIDATES of them."""
    count = min(CANDIDATES, last - first + 1)
    return [first + round(k * (last - first) / max(1, count - 1)) for k in range(count)]


def _falls_and_rises(values: Sequence[float]) -> bool:
    """Return whether values fall to their least and then rise, but for a share of NOISE."""
    least = values.index(min(values))
    falling = all(after <= before * (1 + NOISE) for before, after in pairwise(values[: least + 1]))
    return falling and all(after >= before * (1 - NOISE) for before, after in pairwise(values[least:]))


def searched_entry(chooser: Chooser, sampler: Sampler, own: Entry, calls: int) -> tuple[Entry, dict[str, Any]]:
    """Search the times of a student's calls on noises of their own; return its row, and the search as JSON.

    Args:
        chooser: whose judges decide, and whose noises the search leaves alone.
        sampler: the sampler of the opened student.
        own: the student's own row.
        calls: the number of calls.

    Raises:
        BootdiffError: for another kind of student or an exported one, or where nothing can tell samples apart.
    """
    student = getattr(sampler, "student", None)
    if not isinstance(student, ConsistencyStudent):
        kind = "an exported student" if student is None else f"a {getattr(student, 'kind', 'other')} student"
        raise BootdiffError(f"--search-times is for the run of a consistency student, got {kind}; leave it out.")
    if not 2 <= calls <= MOST_CALLS:
        raise BootdiffError(f"--search-times expects a number of calls from 2 to {MOST_CALLS}, got {calls}.")
    if chooser.blind:
        raise BootdiffError("--search-times needs a Fréchet distance: name --features and a --reference.")
    noises = Noises(min(SAMPLES, chooser.engine.noises.num), choice_seed(chooser.engine.noises))
    engine = chooser.engine.on(noises, chooser.judges)  # who measure nothing but the Fréchet distance
    row = own.candidate.row

    def entry(times: tuple[float, ...]) -> Entry:
        count = len(times)
        searched = replace(row, sampler=CONSISTENCY, steps=count, calls=row.calls - 1 + count, spacing=SEARCHED)
        return Entry(
            Candidate(searched, MultistepConsistency(student, times), same_path=False), own.teacher, own.listed
        )

    def distance(times: tuple[float, ...]) -> float:
        figures = engine.measure([entry(times)], "searching the times of the calls")[0][0]
        value = float(figures["frechet_distance"].value)
        # The first process speaks for all: another's last bit may lead the search elsewhere.
        return float(word_of_first([math.inf if math.isnan(value) else value])[0])

    usual = possible_times(student) or even_times(CANDIDATES - 1, student.t_min, student.t_max)
    possible = [time for time in usual if time > student.t_min]
    found = search_times(distance, possible, calls)
    told = {"calls": calls, "num": noises.num, "seed": noises.seed, **found.as_json}
    return entry(found.times), told
