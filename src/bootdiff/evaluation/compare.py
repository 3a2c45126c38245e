"""Students beside their teacher under every sampler that diffusers has: the paper's Table 1, for one's own models."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bootdiff.evaluation.measure import PATH_NUM, Listed, Measured, Work, best_rows, work_of
from bootdiff.evaluation.opening import Opened
from bootdiff.evaluation.processes import gathered, mine
from bootdiff.evaluation.rows import Candidate, reference_path, teacher_candidates
from bootdiff.evaluation.stock_samplers import stock_candidates
from bootdiff.evaluation.tally import Judges
from bootdiff.files import load_tensors, read_json, save_tensors, write_json, write_whole
from bootdiff.metrics.speed import latency
from bootdiff.pipelines.refine import refined_rows
from bootdiff.pipelines.samplers import batch_for, best_device
from bootdiff.progress import Progress, is_first_process, progress
from bootdiff.randomness import sample_noise
from bootdiff.teachers import Teacher

#: samples shown in a row
SHOWN = 10
#: DDIM steps of a teacher for which diffusers has no sampler
FEW_STEPS = (1, 4, 10, 50)


@dataclass(frozen=True)
class Entry:
    """A row to be measured: the same sampler with one spacing or several, of which the best counts.

    Args:
        kind: ``"teacher"`` or ``"student"``.
        listed: what the samples are conditioned on; a student may need to be told more than its teacher.
        path_of: whose path, and from when to when, the samples should end.
    """

    kind: str
    candidates: Sequence[Candidate]
    listed: Listed
    path_of: tuple[Teacher, tuple[float, float]] | None = None

    @property
    def name(self) -> str:
        """The row's."""
        return self.candidates[0].row


@dataclass
class Comparison:
    """Rows measured one after the other, each kept as soon as it is done.

    Args:
        teacher: what all of them sample, or learned.
        folder: where finished rows lie.
    """

    teacher: Teacher
    folder: Path
    judges: Judges = field(default_factory=Judges)
    num: int = 2000
    seed: int = 0
    repeats: int = 1
    _truths: dict[tuple[int, int, int, float, float], Tensor] = field(default_factory=dict, init=False)

    @torch.no_grad()
    def run(self, entries: Sequence[Entry]) -> list[dict[str, Any]]:
        """All rows; those that an earlier run has finished are read."""
        self.teacher.to(best_device())
        batches = -(-self.num // batch_for(self.teacher.shape)) * self.repeats
        missing = [entry for entry in entries if not self._path(entry, "json").exists()]
        calls = sum(candidate.calls for entry in missing for candidate in entry.candidates) * batches
        with progress("comparing", calls, show=is_first_process()) as bar:
            for entry in missing:
                bar.text = entry.name
                self._keep(entry, *self._measure(entry, bar))
        gathered(None)  # the first process has written
        return [read_json(self._path(entry, "json")) for entry in entries]

    def pictures(self, entries: Sequence[Entry]) -> dict[str, Tensor]:
        """The first samples of every row, as images."""
        return {entry.name: load_tensors(self._path(entry, "safetensors"))["images"] for entry in entries}

    def _path(self, entry: Entry, suffix: str) -> Path:
        # Two names may have the same letters: run_1 and run-1.
        key = hashlib.blake2b(f"{entry.kind} {entry.name}".encode(), digest_size=3).hexdigest()
        return self.folder / f"{re.sub('[^a-z0-9+]+', '-', entry.name.lower())}-{key}.{suffix}"

    def _measure(self, entry: Entry, bar: Progress) -> tuple[dict[str, Any], Tensor | None]:
        """The row, and the first samples where this process made them."""
        measured = [Measured(candidate) for candidate in entry.candidates]
        shown: dict[str, Tensor] = {}
        for seed in self._seeds():
            for one in measured:
                for batch in mine(self._work(entry, seed)):
                    truth = self._truth(entry, one.candidate, seed, batch)
                    samples = one.measure(batch, truth, self.judges)
                    if one.candidate.spacing not in shown:  # latents are decoded once
                        shown[one.candidate.spacing] = batch.decode(samples[:SHOWN]).cpu()
                    bar.advance(one.candidate.calls)
                one.close(self.judges)
        row = best_rows(measured)[0]
        best = next(one.candidate for one in measured if one.candidate.spacing == row["spacing"])
        return {**row, "kind": entry.kind, "milliseconds": self._latency(entry, best)}, shown.get(row["spacing"])

    def _keep(self, entry: Entry, row: Mapping[str, Any], images: Tensor | None) -> None:
        """The row last: where it is, its pictures are too."""
        if not is_first_process() or images is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(entry, "safetensors")
        write_whole(path, lambda temporary: save_tensors(temporary, {"images": images}))
        write_json(self._path(entry, "json"), row)

    def _seeds(self) -> Iterator[int]:
        return (self.seed + repeat * self.num for repeat in range(self.repeats))

    def _work(self, entry: Entry, seed: int):
        return work_of(self.teacher, entry.listed, seed, self.num, batch_for(self.teacher.shape))

    def _truth(self, entry: Entry, candidate: Candidate, seed: int, batch: Work) -> Tensor | None:
        """The path's ends for the first noises of a seed, solved once for all students of one path."""
        if entry.path_of is None or batch.start >= PATH_NUM or not candidate.same_path:
            return None
        teacher, times = entry.path_of
        key = (seed, batch.start, id(teacher), *times)
        if key not in self._truths:
            first = batch.first(PATH_NUM - batch.start)
            self._truths[key] = reference_path(teacher.to(first.eps.device), *times)(first.eps, first.condition)
        return self._truths[key]

    def _latency(self, entry: Entry, candidate: Candidate) -> dict[str, Any]:
        """Milliseconds for one image, as the paper measures speed."""
        device = best_device()
        eps = sample_noise(self.seed, 0, 1, self.teacher.shape).to(device)
        condition = entry.listed.conditions.listed(self.seed, 0, 1).to(device)
        rounds = 10 if candidate.calls <= 20 else 3
        return latency(lambda: candidate.sample(eps, condition), device, rounds=rounds).as_json()


def teacher_entries(teacher: Teacher, samplers: Mapping[str, Sequence[int]], listed: Listed) -> Iterator[Entry]:
    """A row for every sampler and number of steps; DDIM's where diffusers has no sampler for the schedule."""
    candidates = list(stock_candidates(teacher, samplers)) or teacher_candidates(teacher, teacher.t_range, FEW_STEPS)
    for name in dict.fromkeys(candidate.row for candidate in candidates):
        same = [candidate for candidate in candidates if candidate.row == name]
        yield Entry("teacher", same, listed, (teacher, teacher.t_range))


def student_entries(
    names: Sequence[str],
    group: Sequence[Opened],
    labels: Sequence[int] | None = None,
    refine: Sequence[int] = (),
    level: float | None = None,
) -> Iterator[Entry]:
    """A row for every student; each is compared with the end of the path that it learned.

    Args:
        labels: the classes that their prompts ask for.
        refine: further rows, of the student and so many steps of its teacher.
        level: the time at which the teacher takes over; by default where sigma / alpha is 1/3.
    """
    for name, opened in zip(short_names(names), group, strict=True):
        listed, path = Listed(opened.conditions, labels, opened.texts), (opened.path_of, opened.t_range)
        yield Entry("student", [Candidate(name, "one call", 1, opened.sampler)], listed, path)
        for count, row in zip(refine, refined_rows(opened.sampler, opened.teacher, refine, level), strict=True):
            words = f"{name} + {count} DDIM"
            yield Entry("student", [Candidate(words, f"from t = {row.level:.3g}", count + 1, row)], listed, path)


def short_names(names: Sequence[str]) -> list[str]:
    """The last parts of folders, as many as tell them apart."""
    parts = [Path(name).resolve().parts for name in names]
    for count in range(1, max(map(len, parts)) + 1):
        short = ["/".join(part[-count:]) for part in parts]
        if len(set(short)) == len(short):
            return short
    return list(names)
