"""Measuring one candidate: the same noises and conditions for all, figures by noise seed, split over processes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from bootdiff.condition import Condition
from bootdiff.data.conditions import Conditions
from bootdiff.evaluation.processes import gathered
from bootdiff.evaluation.rows import Candidate
from bootdiff.evaluation.tally import Judges, Tally
from bootdiff.metrics.estimate import Estimate
from bootdiff.pipelines.samplers import noise_batches
from bootdiff.teachers import Teacher, adapter_of

#: noises a seed whose path error is measured, where the path's ends are not a row of their own
PATH_NUM = 128


@dataclass(frozen=True)
class Work:
    """A batch that every candidate samples.

    Args:
        eps: noises.
        condition: theirs.
        decode: from samples to images; latents need it.
        labels: the classes that were asked for, (b,), if any were.
        texts: the prompts, if there were any.
        groups: which samples were asked for the same, (b,): the prompt's number, or the class.
        start: the number of the first sample.
    """

    eps: Tensor
    condition: Condition
    decode: Callable[[Tensor], Tensor]
    labels: Tensor | None = None
    texts: Sequence[str] | None = None
    groups: Tensor | None = None
    start: int = 0

    def first(self, num: int) -> Work:
        """The first samples only."""
        labels = None if self.labels is None else self.labels[:num]
        texts = None if self.texts is None else self.texts[:num]
        groups = None if self.groups is None else self.groups[:num]
        return Work(self.eps[:num], self.condition.index(slice(num)), self.decode, labels, texts, groups, self.start)


@dataclass(frozen=True)
class Listed:
    """What samples are conditioned on, one after the other, and what is known of it.

    Args:
        labels: the classes that the conditions ask for, where they are no labels.
        texts: the prompts behind them.
    """

    conditions: Conditions
    labels: Sequence[int] | None = None
    texts: Sequence[str] | None = None


def work_of(teacher: Teacher, listed: Listed, seed: int, num: int, size: int) -> Iterator[Work]:
    """The batches of one noise seed."""
    adapter = adapter_of(teacher)
    decode = adapter.decode if adapter is not None else lambda samples: samples
    for number, eps in enumerate(noise_batches(seed, num, teacher.shape, size)):
        first = number * size
        condition = listed.conditions.listed(seed, first, first + len(eps)).to(eps.device)
        asked, labels, texts = condition.get("classes"), listed.labels, listed.texts
        numbers = range(first, first + len(eps))
        if labels is not None:
            asked = torch.tensor([labels[i % len(labels)] for i in numbers])
        words = None if texts is None else [texts[i % len(texts)] for i in numbers]
        groups = asked if texts is None else torch.tensor([i % len(texts) for i in numbers])
        yield Work(eps, condition, decode, asked, words, groups, first)


@dataclass
class Counts:
    """What one process has sampled for a candidate: samples, seconds, sums of squared errors, of their squares, of how
    many.
    """

    samples: int = 0
    seconds: float = 0.0
    squared: float = 0.0
    fourth: float = 0.0
    compared: int = 0


@dataclass
class Measured:
    """What one candidate has gathered so far."""

    candidate: Candidate
    seeds: list[dict[str, Estimate]] = field(default_factory=list)
    tally: Tally | None = None
    own: Counts = field(default_factory=lambda: Counts())
    everyone: list[Counts] = field(default_factory=list)

    def measure(self, work: Work, truth: Tensor | None, judges: Judges) -> Tensor:
        """Sample; compare the first samples with ``truth``, the Signal-ODE's solutions of those noises."""
        if not self.own.samples:  # the first call also makes everything ready
            self.candidate.sample(work.eps[:1], work.condition.index(slice(1)))
        _wait(work.eps)
        started = time.perf_counter()
        samples = self.candidate.sample(work.eps, work.condition)
        _wait(samples)
        self.own.seconds += time.perf_counter() - started
        self.own.samples += len(samples)
        if truth is not None and self.candidate.same_path:
            errors = (samples[: len(truth)] - truth).square().flatten(1).mean(1).double()
            self.own.squared, self.own.fourth = (
                self.own.squared + float(errors.sum()),
                self.own.fourth + float(errors.square().sum()),
            )
            self.own.compared += len(truth)
        if judges:
            self.tally = self.tally or Tally()
            self.tally.add(judges, work.decode(samples), work)
        return samples

    def close(self, judges: Judges) -> None:
        """End a noise seed, with what all processes have made of it."""
        tallies = [tally for tally in gathered(self.tally) if tally is not None]
        for other in tallies[1:]:
            tallies[0].merge(other)
        if tallies:
            self.seeds.append(tallies[0].figures(judges))
        self.tally = None
        self.everyone = gathered(replace(self.own))

    @property
    def figures(self) -> dict[str, Estimate]:
        """Those of the noise seed, or means over several."""
        if len(self.seeds) < 2:
            return self.seeds[0] if self.seeds else {}
        return {name: Estimate.mean_of([seed[name] for seed in self.seeds]) for name in self.seeds[0]}

    @property
    def distance(self) -> float | None:
        """The mean Fréchet distance."""
        figure = self.figures.get("frechet_distance")
        return None if figure is None else figure.value

    @property
    def path_error(self) -> Estimate | None:
        """Mean squared difference to the path's ends, of the noises whose path is known."""
        num = sum(counts.compared for counts in self.everyone)
        if not num:
            return None
        mean, square = (sum(getattr(c, name) for c in self.everyone) / num for name in ("squared", "fourth"))
        error = math.sqrt(max(0.0, square - mean**2) / (num - 1)) if num > 1 else None
        return Estimate.around(mean, error, num, "mean squared difference to the path's end", lowest=0)

    def row(self) -> dict[str, Any]:
        """The figures, as JSON holds them."""
        figures, faithful, error = self.figures, self.figures.get("faithfulness"), self.path_error
        figures = figures if error is None else {**figures, "path_error": error}
        return {
            "name": self.candidate.row,
            "calls": self.candidate.calls,
            "spacing": self.candidate.spacing,
            "frechet_distance": self.distance,
            "frechet_distances": [s["frechet_distance"].value for s in self.seeds if "frechet_distance" in s],
            "faithfulness": None if faithful is None else faithful.value,
            "path_error": None if error is None else error.value,
            "images_per_second": sum(c.samples / c.seconds for c in self.everyone if c.seconds),
            "figures": {name: figure.as_json() for name, figure in figures.items()},
        }


def _wait(values: Tensor) -> None:
    """For the GPU, where they lie on one."""
    if values.is_cuda:
        torch.cuda.synchronize(values.device)


def best_rows(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """One row a name: of several spacings, the one with the smaller distance (or path error) counts."""
    best: dict[str, Measured] = {}
    for entry in measured:
        name = entry.candidate.row
        if name not in best or _figure(entry) < _figure(best[name]):
            best[name] = entry
    return [entry.row() for entry in best.values()]


def _figure(entry: Measured) -> float:
    error = entry.path_error
    return entry.distance if entry.distance is not None else 0.0 if error is None else error.value
