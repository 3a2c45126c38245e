"""The teacher's own rows: DDIM as in the paper, and its best sampler and spacing at every number of calls.

Which one is best is decided on noises that no row is reported on. First a few hundred samples of each sampler are
drawn, and the best two of every spacing stay. Then 2,000 samples of those decide. With few samples a Fréchet distance
is too large by an amount that depends on the spacing, so the first samples do not compare spacings. Above
``EXHAUSTIVE`` calls, only the samplers that led at the number of calls before are tried.
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

#: the numbers of calls at which the best sampler is looked for
LADDER = (1, 2, 3, 4, 5, 6, 8, 10, 15, 25, 50)
#: the numbers of DDIM steps in the paper's tables
PAPER = (1, 4, 10, 50)
#: the seeds of the first noise for choosing; the second seed serves where the first one's noises are also the table's.
#: torch's generator reads 32 bits of a seed.
CHOICE_SEEDS = (0xC401CE00, 0x4C01CE00)
#: the samples of a first look, the samples that decide, and how many samplers of each spacing are decided between
FIRST_LOOK, DECIDING, FINALISTS = 300, 2000, 2
#: a sampler is out after the first look if its distance is more than this many times the best
FAR = 2.0
#: the samples with which one sampler's spacings are compared
SPACED = 1000
#: the calls up to which every sampler and spacing is tried, and how many of them are tried above
EXHAUSTIVE, LEADERS = 10, 3


class Samplers(Protocol):
    """The ways to sample a teacher, or a cascade of two teachers."""

    def named(self, name: str, steps: int) -> list[Candidate]:
        """Return one sampler with so many steps, once for every spacing."""
        ...

    def within(self, calls: int) -> Iterator[Candidate]:
        """Yield every sampler and spacing within so many network calls an image."""
        ...

    @property
    def path(self) -> Candidate:
        """Return the exact end of the teacher's own path."""
        ...


@dataclass(frozen=True)
class Stock:
    """The ways to sample one teacher, which are diffusers' samplers."""

    teacher: Teacher

    def named(self, name: str, steps: int) -> list[Candidate]:
        """Return one sampler with so many steps, once for every spacing."""
        return stock_samplers.candidates(self.teacher, name, steps)

    def within(self, calls: int) -> Iterator[Candidate]:
        """Yield every sampler and spacing within so many network calls an image."""
        return stock_samplers.within(self.teacher, calls)

    @property
    def path(self) -> Candidate:
        """Return the exact end of the teacher's own path."""
        return path_end(self.teacher, self.teacher.t_range)


@dataclass
class Chooser:
    """Decides which of several candidates is the best, on noises that are used for nothing else.

    Args:
        engine: the engine whose judges decide; its own noises are not used.
        samplers: the ways to sample the teacher.
        teacher, listed: the teacher that is sampled, and the conditions of the samples.
    """

    engine: Engine
    samplers: Samplers
    teacher: Teacher
    listed: Listed

    def __post_init__(self) -> None:
        self.tried: list[dict[str, Any]] = []
        judges = self.engine.judges
        self.blind = judges.reference is None
        #: judges that measure the Fréchet distance only, because it alone decides
        self.judges = Judges(
            judges.features, None if judges.reference is None else replace(judges.reference, samples=None)
        )
        self._leaders: set[tuple[str, str | None]] = set()

    def best_within(self, calls: int) -> Candidate | None:
        """Return the teacher's best sampler within so many calls.

        It is None if nothing can tell which is best, or none can sample in so few calls.
        """
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
        """Return the best candidates of every spacing by a first look, without those far from the best of all."""
        looked = self._look(candidates, FIRST_LOOK)
        near = [candidate for candidate, distance in looked if distance <= FAR * looked[0][1]]
        spacings = dict.fromkeys(candidate.row.spacing for candidate in near)
        same = {spacing: [one for one in near if one.row.spacing == spacing] for spacing in spacings}
        return [one for those in same.values() for one in those[:FINALISTS]]

    def named(self, name: str, steps: int) -> Candidate | None:
        """Return one sampler with its best spacing; with its first spacing if nothing can tell which is best."""
        candidates = self.samplers.named(name, steps)
        if self.blind or len(candidates) < 2:
            return next(iter(candidates), None)
        return self._look(candidates, SPACED)[0][0]

    def _look(self, candidates: Sequence[Candidate], most: int) -> list[tuple[Candidate, float]]:
        """Return the candidates with their distances, the nearest first."""
        num = min(most, self.engine.noises.num)
        own = self.engine.on(Noises(num, choice_seed(self.engine.noises)), self.judges)
        entries = [Entry(candidate, self.teacher, self.listed) for candidate in candidates]
        figures = [seeds[0] for seeds in own.measure(entries, "choosing the teacher's sampler")]
        distances = [f["frechet_distance"].value if "frechet_distance" in f else math.inf for f in figures]
        distances = word_of_first([math.inf if math.isnan(distance) else distance for distance in distances])
        for candidate, distance in zip(candidates, distances, strict=True):
            told = distance if math.isfinite(distance) else None
            self.tried.append({**candidate.row.identity, "num": num, "frechet_distance": told})
        return sorted(zip(candidates, distances, strict=True), key=lambda pair: pair[1])


def choice_seed(noises: Noises) -> int:
    """Return a seed of the first noise for choosing, such that no noise is shared with ``noises``."""
    return next(seed for seed in CHOICE_SEEDS if not _meet(seed, DECIDING, noises.seed, noises.num * noises.repeats))


def _meet(first: int, count: int, second: int, other: int) -> bool:
    """Return whether two ranges of seeds share one, as torch's generator reads them."""
    return (second - first) % 2**32 < count or (first - second) % 2**32 < other


def teacher_entries(
    chooser: Chooser, calls: Sequence[int] = LADDER, path: bool = True, more: Sequence[Candidate] = ()
) -> list[Entry]:
    """Return the teacher's rows, sorted by calls: DDIM, the best at each number of calls, 50 Heun steps.

    DDIM has the paper's steps. Each row is there once.

    Args:
        path: whether the exact end of the teacher's path, 50 Heun steps, is a row.
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
    """Return whether a measured row is one that the terminal shows by default.

    These are students, DDIM with the paper's steps, the teacher's best within as many calls, and exact ends of paths.
    """
    paper = row["sampler"] == "ddim" and row["steps"] in PAPER
    return row["kind"] == "student" or row["sampler"] == PATH or paper or row["best_of"] in (None, *PAPER)
