"""One evaluation for every system: same noises, same features, same reference."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bootdiff.allocator import keep_freed_memory
from bootdiff.condition import Condition
from bootdiff.data.conditions import Conditions, Unconditional
from bootdiff.errors import BootdiffError
from bootdiff.evaluation.rows import DDIM_STEPS, Candidate, from_elsewhere, heun_candidate, teacher_candidates
from bootdiff.metrics.features import Features
from bootdiff.metrics.frechet import Accumulator, Statistics, frechet_distance
from bootdiff.pipelines.samplers import Sampler, batch_for, best_device, noise_batches
from bootdiff.progress import progress
from bootdiff.teachers import Teacher, adapter_of

#: noises a seed whose path error is measured where the Heun row is left out
PATH_NUM = 128


@dataclass(frozen=True)
class Work:
    """A batch that every candidate samples.

    Args:
        eps: noises.
        condition: theirs.
        decode: from samples to images; latents need it.
        labels: the classes that were asked for, (b,), if any were.
    """

    eps: Tensor
    condition: Condition
    decode: Callable[[Tensor], Tensor]
    labels: Tensor | None = None

    def first(self, num: int) -> Work:
        """The first samples only."""
        labels = None if self.labels is None else self.labels[:num]
        return Work(self.eps[:num], self.condition.index(slice(num)), self.decode, labels)


@dataclass
class Measured:
    """What one candidate has gathered so far."""

    candidate: Candidate
    distances: list[float] = field(default_factory=list)
    squared: float = 0.0
    compared: int = 0
    seconds: float = 0.0
    count: int = 0
    faithful: int = 0
    asked: int = 0
    features: Accumulator = field(default_factory=Accumulator)

    def measure(self, work: Work, truth: Tensor | None, features: Features | None) -> Tensor:
        """Sample; compare the first samples with ``truth``, the Signal-ODE's solutions of those noises."""
        started = time.perf_counter()
        samples = self.candidate.sample(work.eps, work.condition)
        if samples.is_cuda:
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - started
        self.count += len(samples)
        if truth is not None and self.candidate.same_path:
            self.squared += float((samples[: len(truth)] - truth).square().flatten(1).mean(1).sum())
            self.compared += len(truth)
        if features is not None:
            values, logits = features.read(work.decode(samples))
            self.features.add(values)
            if logits is not None and work.labels is not None:
                if int(work.labels.max()) >= logits.shape[1]:
                    raise BootdiffError(
                        f"class {int(work.labels.max())} was asked for, but {features.name} knows the classes 0 to "
                        f"{logits.shape[1] - 1}; measure with a classifier that knows it."
                    )
                self.faithful += int((logits.argmax(1).cpu() == work.labels.cpu()).sum())
                self.asked += len(work.labels)
        return samples

    def close(self, reference: Statistics | None) -> None:
        """End a noise seed."""
        if reference is not None:
            self.distances.append(frechet_distance(self.features.statistics(), reference))
            self.features = Accumulator()

    @property
    def distance(self) -> float | None:
        """The mean over noise seeds."""
        return sum(self.distances) / len(self.distances) if self.distances else None

    def row(self) -> dict[str, Any]:
        """The figures."""
        return {
            "name": self.candidate.row,
            "calls": self.candidate.calls,
            "spacing": self.candidate.spacing,
            "frechet_distance": self.distance,
            "frechet_distances": self.distances,
            "faithfulness": self.faithful / self.asked if self.asked else None,
            "path_error": self.squared / self.compared if self.compared else None,
            "images_per_second": self.count / self.seconds,
        }


def evaluate(
    students: Mapping[str, Sampler],
    teacher: Teacher,
    t_range: tuple[float, float],
    features: Features | None = None,
    reference: Statistics | None = None,
    num: int = 2000,
    seed: int = 0,
    repeats: int = 1,
    ddim_steps: Sequence[int] = DDIM_STEPS,
    heun: bool = True,
    path_of: Teacher | None = None,
    conditions: Conditions | None = None,
    labels: Sequence[int] | None = None,
    more: Sequence[Candidate] = (),
) -> dict[str, Any]:
    """Measure students and their teacher from the same noises and conditions.

    Args:
        students: one-step samplers by name.
        t_range: (t_min, t_max) of the path that the students learned. The teacher's own rows span the teacher's own
            range, so that they are the same beside every student; where the students' t_max is another one, the
            teacher is measured from there too, in rows of their own.
        features, reference: for the Fréchet distance; without them only path error and speed are measured.
        num: samples a noise seed.
        seed: noise seed r uses the samples of seed ``seed + r · num``.
        repeats: noise seeds.
        ddim_steps: the teacher's DDIM rows.
        heun: a row for 50 Heun steps, the ground truth, and path errors on every sample; without it path errors are
            measured on the first samples of each seed only, which is much cheaper.
        path_of: whose path the students learned, where their targets were limited in another way than the teacher's.
        conditions: of the samples, for a teacher that is conditioned.
        labels: the classes that the listed conditions ask for, one after the other, where they are not labels
            themselves: the share of samples that the features' classifier finds in them is the faithfulness.
        more: further rows.

    Returns:
        A JSON-ready dictionary; ``rows`` holds the teacher's rows, then the students'.
    """
    keep_freed_memory()
    teacher = teacher.to(best_device())
    truth = Measured(heun_candidate((path_of or teacher).to(best_device()), t_range))
    rows = [Measured(c) for c in (*teacher_candidates(teacher, t_range, ddim_steps), *more)]
    if heun and from_elsewhere(teacher, t_range):
        rows.append(Measured(heun_candidate(teacher, teacher.t_range)))
    learned = [Measured(Candidate(name, "one call", 1, sampler)) for name, sampler in students.items()]
    seeds = [seed + repeat * num for repeat in range(repeats)]
    size = batch_for(teacher.shape)
    work = [_work(teacher, conditions or Unconditional(), labels, first, num, size) for first in seeds]
    _measure(work, -(-num // size), truth, [*rows, *learned], features, reference, heun)
    return {
        "teacher": teacher.name,
        "features": features.name if features else None,
        "num": num,
        "seed": seed,
        "repeats": repeats,
        "t_min": t_range[0],
        "t_max": t_range[1],
        "rows": best_rows([*rows, *([truth] if heun else []), *learned]),
    }


def _work(
    teacher: Teacher, conditions: Conditions, labels: Sequence[int] | None, seed: int, num: int, size: int
) -> Iterator[Work]:
    """The batches of one noise seed."""
    adapter = adapter_of(teacher)
    decode = adapter.decode if adapter is not None else lambda samples: samples
    for number, eps in enumerate(noise_batches(seed, num, teacher.shape, size)):
        first = number * size
        condition = conditions.listed(seed, first, first + len(eps)).to(eps.device)
        asked = condition.get("classes")
        if labels is not None:
            asked = torch.tensor([labels[i % len(labels)] for i in range(first, first + len(eps))])
        yield Work(eps, condition, decode, asked)


def _measure(
    work: Sequence[Iterable[Work]],
    batches: int,
    truth: Measured,
    entries: Sequence[Measured],
    features: Features | None,
    reference: Statistics | None,
    heun: bool,
) -> None:
    """Run every candidate on the same work, one iterable of ``batches`` batches a noise seed."""
    calls = sum(m.candidate.calls for m in entries) * batches + truth.candidate.calls * (batches if heun else 1)
    with torch.no_grad(), progress("evaluating", calls * len(work)) as bar:
        for seed in work:
            for number, batch in enumerate(seed):
                solution = None
                if heun or number == 0:
                    solution = truth.measure(batch if heun else batch.first(PATH_NUM), None, features if heun else None)
                    bar.advance(truth.candidate.calls)
                for entry in entries:
                    entry.measure(batch, solution, features)
                    bar.advance(entry.candidate.calls)
            for entry in [*entries, *([truth] if heun else [])]:
                entry.close(reference)
    truth.compared = 1  # its path error is 0 by definition


def best_rows(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """One row a name: of several spacings, the one with the smaller distance (or path error) counts."""
    best: dict[str, Measured] = {}
    for entry in measured:
        name = entry.candidate.row
        if name not in best or _figure(entry) < _figure(best[name]):
            best[name] = entry
    return [entry.row() for entry in best.values()]


def _figure(entry: Measured) -> float:
    return entry.squared if entry.distance is None else entry.distance
