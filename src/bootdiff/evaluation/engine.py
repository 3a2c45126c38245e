"""The engine that measures every row of every command, so that the same row has the same figure to the last digit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from bootdiff.core.device import best_device
from bootdiff.core.errors import BootdiffError
from bootdiff.evaluation.known import Known, judge_words, teacher_words
from bootdiff.evaluation.measure import PATH_NUM, Figures, Listed, Work, measure, measured_row, speed, work_of
from bootdiff.evaluation.processes import gathered
from bootdiff.evaluation.tally import Judges
from bootdiff.metrics.speed import latency
from bootdiff.samplers.base import batch_for
from bootdiff.samplers.rows import Candidate, reference_path
from bootdiff.system.progress import is_first_process, progress
from bootdiff.teachers import Teacher

#: the number of images with which a row's speed is measured
TIMED = 128
#: the calls up to which a row's latency is the median of ten rounds; above, it is the median of three
QUICK = 20


@dataclass(frozen=True)
class Noises:
    """The noises that are sampled: noise seed r has those of the samples ``seed + r · num``, ….

    Args:
        num: the number of samples for each noise seed.
        seed: the seed of the first noise.
        repeats: the number of noise seeds.
    """

    num: int = 2000
    seed: int = 0
    repeats: int = 1

    @property
    def seeds(self) -> list[int]:
        """Return the number of the first noise of every noise seed."""
        return [self.seed + repeat * self.num for repeat in range(self.repeats)]


@dataclass(frozen=True)
class Entry:
    """A row to be measured.

    Args:
        candidate: the row, and how it is sampled.
        teacher: the teacher whose row it is, or whose student's.
        listed: the conditions of the samples; a student may need to be told more than its teacher.
        path_of: the teacher and the times (t_min, t_max) of the path with whose end the samples are compared; None
            compares them with no path.
    """

    candidate: Candidate
    teacher: Teacher
    listed: Listed
    path_of: tuple[Teacher, tuple[float, float]] | None = None


@dataclass
class Engine:
    """Measures rows, and finds those of a teacher that were measured before.

    Args:
        judges: the feature space, the reference and the CLIP model.
        noises: the noises from which every row is sampled.
    """

    judges: Judges = field(default_factory=Judges)
    noises: Noises = field(default_factory=Noises)
    _teachers: dict[tuple[int, int], dict[str, Any] | None] = field(default_factory=dict, init=False)
    _known: dict[tuple[int, int], Known] = field(default_factory=dict, init=False)
    _truths: dict[tuple[Any, ...], Tensor] = field(default_factory=dict, init=False)

    def measure(self, entries: Sequence[Entry], what: str = "evaluating") -> list[list[Figures]]:
        """Return the figures of every row, as a list with one entry for each noise seed.

        Raises:
            BootdiffError: if a student's samples are not finite; a teacher's row has no figures then.
        """
        held = [[self._find(entry, seed) for seed in self.noises.seeds] for entry in entries]
        work = [
            entry.candidate.row.calls * seeds.count(None) * -(-self.noises.num // batch_for(entry.teacher.shape))
            for entry, seeds in zip(entries, held, strict=True)
        ]
        with progress(what, sum(work), show=is_first_process() and sum(work) > 0) as bar:
            for entry, seeds in zip(entries, held, strict=True):
                bar.text = entry.candidate.row.name
                for number, seed in enumerate(self.noises.seeds):
                    if seeds[number] is None:
                        seeds[number] = self._measure(entry, seed, bar.advance)
        return [[figures or {} for figures in seeds] for seeds in held]

    def rows(self, entries: Sequence[Entry], latencies: bool = False) -> list[dict[str, Any]]:
        """Return every row as JSON holds it, with its speed on this machine.

        Args:
            latencies: whether milliseconds for one image are measured, too.
        """
        rows = []
        for entry, seeds in zip(entries, self.measure(entries), strict=True):
            more: dict[str, Any] = {"images_per_second": speed(entry.candidate, self._first(entry).first(TIMED))}
            if latencies:
                more["milliseconds"] = self._latency(entry)
            rows.append(measured_row(entry.candidate, seeds, more))
        return rows

    def on(self, noises: Noises, judges: Judges) -> Engine:
        """Return an engine with other noises and judges, which need not hash the teachers again."""
        other = Engine(judges, noises)
        other._teachers = self._teachers
        return other

    def samples(self, entry: Entry, num: int) -> Tensor:
        """Return the first ``num`` samples of a row as images, (num, c, h, w) on the CPU."""
        work = self._first(entry).first(num)
        return work.decode(work.sampled(entry.candidate)).cpu()

    def known(self, entry: Entry) -> Known:
        """Return what was measured before of this row's teacher on its conditions."""
        key = (id(entry.teacher), id(entry.listed))
        if key not in self._teachers:  # hashing a large teacher takes a minute
            self._teachers[key] = teacher_words(entry.teacher, entry.listed)
        if key not in self._known:
            words = self._teachers[key]
            kept = words is not None and getattr(self.judges.features, "lasting", True)
            self._known[key] = Known({**words, **judge_words(self.judges)} if kept and words is not None else None)
        return self._known[key]

    def _find(self, entry: Entry, seed: int) -> Figures | None:
        """Return a teacher's figures that were measured before, or None.

        It is None for a student, whose one call is measured sooner than looked up.
        """
        if entry.candidate.row.kind != "teacher":
            return None
        # The first process speaks for all: another may see another file.
        return gathered(self.known(entry).find(entry.candidate.row.identity, seed, self.noises.num))[0]

    def _measure(self, entry: Entry, seed: int, advance: Callable[[int], object]) -> Figures:
        row = entry.candidate.row
        entry.teacher.to(best_device())
        batches = work_of(entry.teacher, entry.listed, seed, self.noises.num, batch_for(entry.teacher.shape))
        figures = measure(entry.candidate, batches, self.judges, lambda work: self._truth(entry, seed, work), advance)
        if row.kind == "teacher":
            if is_first_process():
                self.known(entry).keep(row.identity, seed, self.noises.num, figures or {})
        elif figures is None:
            raise BootdiffError(f"samples of {row.name} are not finite; train it again with a lower learning rate.")
        return figures or {}

    def _truth(self, entry: Entry, seed: int, work: Work) -> Tensor | None:
        """Return the path's ends for the first noises of a batch, (m, *shape), or None.

        They are solved once for all rows of one path.
        """
        if entry.path_of is None or work.start >= PATH_NUM:
            return None
        teacher, times = entry.path_of
        key = (seed, work.start, id(teacher), id(entry.listed), *times)
        if key not in self._truths:
            first = work.first(PATH_NUM - work.start)
            self._truths[key] = reference_path(teacher.to(first.eps.device), *times)(first.eps, first.condition)
        return self._truths[key]

    def _first(self, entry: Entry) -> Work:
        entry.teacher.to(best_device())
        size = batch_for(entry.teacher.shape)
        return next(work_of(entry.teacher, entry.listed, self.noises.seed, min(self.noises.num, size), size))

    def _latency(self, entry: Entry) -> dict[str, Any]:
        """Return the milliseconds that one image takes, as the paper measures speed."""
        work, calls = self._first(entry).first(1), entry.candidate.row.calls
        rounds = 10 if calls <= QUICK else 3
        return latency(lambda: work.sampled(entry.candidate), best_device(), rounds=rounds).as_json()
