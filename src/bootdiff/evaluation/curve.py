"""The teacher's own rows: DDIM as in the paper, and its best sampler and spacing at every number of calls.

Which one is best is decided on noises that no row is reported on. A few hundred samples of each sampler leave the best
two of every spacing, and 2,000 samples of those decide. Of few samples a Fréchet distance is too large by an amount
that depends on the spacing, so that spacings are not compared by them. Above ``EXHAUSTIVE`` calls only those are looked
at that led at the number of calls before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from bootdiff.evaluation.engine import Engine, Entry, Noises
from bootdiff.evaluation.measure import Listed
from bootdiff.evaluation.tally import Judges
from bootdiff.samplers import stock as stock_samplers
from bootdiff.samplers.rows import PATH, Candidate, path_end
from bootdiff.system.processes import word_of_first
from bootdiff.teachers import Teacher

#: calls at which the best sampler is looked for
LADDER = (1, 2, 3, 4, 5, 6, 8, 10, 15, 25, 50)
#: DDIM steps of the paper's tables
PAPER = (1, 4, 10, 50)
#: numbers of the first noise of the choice: the second one where the first one's noises are those of the table. torch's
#: generator reads 32 bits of a seed.
CHOICE_SEEDS = (0xC401CE00, 0x4C01CE00)
#: samples of a first look, samples that decide, and how many of each spacing get so far
FIRST_LOOK, DECIDING, FINALISTS = 300, 2000, 2
#: times the best distance of a first look beyond which nothing gets so far
FAR = 2.0
#: samples by which one sampler's spacings are compared
SPACED = 1000
#: calls up to which every sampler and spacing is looked at, and how many are looked at beyond
EXHAUSTIVE, LEADERS = 10, 3


class Samplers(Protocol):
    """The ways to sample a teacher, or a cascade of two."""

    def named(self, name: str, steps: int) -> list[Candidate]:
        """One sampler with so many steps, by every spacing."""
        ...

    def within(self, calls: int) -> Iterator[Candidate]:
        """Every sampler and spacing within so many calls an image."""
        ...

    @property
    def path(self) -> Candidate:
        """The exact end of the teacher's own path."""
        ...


@dataclass(frozen=True)
class Stock:
    """A teacher by diffusers' samplers."""

    teacher: Teacher

    def named(self, name: str, steps: int) -> list[Candidate]:
        """One sampler with so many steps, by every spacing."""
        return stock_samplers.candidates(self.teacher, name, steps)

    def within(self, calls: int) -> Iterator[Candidate]:
        """Every sampler and spacing within so many calls an image."""
        return stock_samplers.within(self.teacher, calls)

    @property
    def path(self) -> Candidate:
        """The exact end of the teacher's own path."""
        return path_end(self.teacher, self.teacher.t_range)


@dataclass
class Chooser:
    """Decides which of several candidates is the best, on noises of its own.

    Args:
        engine: whose judges decide; its noises are not touched.
        samplers: of the teacher.
        teacher, listed: what is sampled, and on which conditions.
    """

    engine: Engine
    samplers: Samplers
    teacher: Teacher
    listed: Listed

    def __post_init__(self) -> None:
        self.tried: list[dict[str, Any]] = []
        judges = self.engine.judges
        self.blind = judges.reference is None
        #: what decides is the Fréchet distance alone
        self._judges = Judges(
            judges.features, None if judges.reference is None else replace(judges.reference, samples=None)
        )
        self._leaders: set[tuple[str, str | None]] = set()

    def best_within(self, calls: int) -> Candidate | None:
        """The teacher's best within so many calls; None where it cannot be told, or not be sampled in so few."""
        finalists = [] if self.blind else list(self.samplers.within(calls))
        if calls > EXHAUSTIVE and self._leaders:
            finalists = [one for one in finalists if (one.row.sampler, one.row.spacing) in self._leaders]
        elif finalists:
            finalists = self._finalists(finalists)
        if not finalists:
            return None
        decided = self._look(finalists, DECIDING)
        self._leaders = {(one.row.sampler, one.row.spacing) for one, _ in decided[:LEADERS]}
        best, distance = decided[0]
        return best.best_within(calls) if math.isfinite(distance) else None

    def _finalists(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The best of every spacing, by a first look; none that is far from the best of all."""
        looked = self._look(candidates, FIRST_LOOK)
        near = [candidate for candidate, distance in looked if distance <= FAR * looked[0][1]]
        spacings = dict.fromkeys(candidate.row.spacing for candidate in near)
        same = {spacing: [one for one in near if one.row.spacing == spacing] for spacing in spacings}
        return [one for those in same.values() for one in those[:FINALISTS]]

    def named(self, name: str, steps: int) -> Candidate | None:
        """One sampler with the spacing that is the best of it; the first of them where nothing can be told."""
        candidates = self.samplers.named(name, steps)
        if self.blind or len(candidates) < 2:
            return next(iter(candidates), None)
        return self._look(candidates, SPACED)[0][0]

    def _look(self, candidates: Sequence[Candidate], most: int) -> list[tuple[Candidate, float]]:
        """Candidates with their distances, the nearest first."""
        num = min(most, self.engine.noises.num)
        own = self.engine.on(Noises(num, choice_seed(self.engine.noises)), self._judges)
        entries = [Entry(candidate, self.teacher, self.listed) for candidate in candidates]
        figures = [seeds[0] for seeds in own.measure(entries, "choosing the teacher's sampler")]
        distances = [f["frechet_distance"].value if "frechet_distance" in f else math.inf for f in figures]
        distances = word_of_first([math.inf if math.isnan(distance) else distance for distance in distances])
        for candidate, distance in zip(candidates, distances, strict=True):
            told = distance if math.isfinite(distance) else None
            self.tried.append({**candidate.row.identity, "num": num, "frechet_distance": told})
        return sorted(zip(candidates, distances, strict=True), key=lambda pair: pair[1])


def choice_seed(noises: Noises) -> int:
    """Number of a first noise such that none of the choice's noises is one of these."""
    return next(seed for seed in CHOICE_SEEDS if not _meet(seed, DECIDING, noises.seed, noises.num * noises.repeats))


def _meet(first: int, count: int, second: int, other: int) -> bool:
    """Whether two runs of seeds share one, as torch's generator reads them."""
    return (second - first) % 2**32 < count or (first - second) % 2**32 < other


def teacher_entries(
    chooser: Chooser, calls: Sequence[int] = LADDER, path: bool = True, more: Sequence[Candidate] = ()
) -> list[Entry]:
    """DDIM at the paper's steps, the best at each number of calls, and 50 Heun steps: each row once, by its calls.

    Args:
        path: whether the path's exact end is a row.
        more: further rows of the teacher.
    """
    teacher, listed = chooser.teacher, chooser.listed
    best = [chooser.best_within(count) for count in calls]
    ddim = [chooser.named("ddim", steps) for steps in PAPER]
    entries: dict[str, Entry] = {}
    for candidate in [*best, *ddim, *more]:
        if candidate is not None:
            entry = Entry(candidate, teacher, listed, (teacher, teacher.t_range))
            entries.setdefault(repr(candidate.row.identity), entry)
    if path:
        end = chooser.samplers.path
        entries[repr(end.row.identity)] = Entry(end, teacher, listed)
    return sorted(entries.values(), key=lambda entry: (entry.candidate.row.calls, entry.candidate.row.name))


def is_shown(row: Mapping[str, Any]) -> bool:
    """Whether a measured row is one of those that the terminal shows by default.

    Those are students, DDIM with the paper's steps, the teacher's best within as many calls, and exact ends of paths.
    """
    paper = row["sampler"] == "ddim" and row["steps"] in PAPER
    return row["kind"] == "student" or row["sampler"] == PATH or paper or row["best_of"] in (None, *PAPER)
