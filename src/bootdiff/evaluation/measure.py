"""Measuring one candidate: the same noises and conditions for all, figures by noise seed, split over processes."""

from __future__ import annotations

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


@dataclass(frozen=True)
class Work:
    """A batch that every candidate samples.

    Args:
        eps: noises.
        condition: theirs.
        decode: from samples to images; latents need it.
        labels: the classes that were asked for, (b,), if any were.
        texts: the prompts, if there were any.
        start: the number of the first sample.
    """

    eps: Tensor
    condition: Condition
    decode: Callable[[Tensor], Tensor]
    labels: Tensor | None = None
    texts: Sequence[str] | None = None
    start: int = 0

    def first(self, num: int) -> Work:
        """The first samples only."""
        labels = None if self.labels is None else self.labels[:num]
        texts = None if self.texts is None else self.texts[:num]
        return Work(self.eps[:num], self.condition.index(slice(num)), self.decode, labels, texts, self.start)


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
        yield Work(eps, condition, decode, asked, words, first)


@dataclass
class Counts:
    """What one process has sampled for a candidate: samples, seconds, squared errors and of how many."""

    samples: int = 0
    seconds: float = 0.0
    squared: float = 0.0
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
        started = time.perf_counter()
        samples = self.candidate.sample(work.eps, work.condition)
        if samples.is_cuda:
            torch.cuda.synchronize()
        self.own.seconds += time.perf_counter() - started
        self.own.samples += len(samples)
        if truth is not None and self.candidate.same_path:
            self.own.squared += float((samples[: len(truth)] - truth).square().flatten(1).mean(1).sum())
            self.own.compared += len(truth)
        if judges:
            self.tally = self.tally or Tally()
            self.tally.add(judges, work.decode(samples), work.start, work.labels, work.texts)
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
    def path_error(self) -> float | None:
        """Mean squared difference to the path's ends, of the noises whose path is known."""
        compared = sum(counts.compared for counts in self.everyone)
        return sum(counts.squared for counts in self.everyone) / compared if compared else None

    def row(self) -> dict[str, Any]:
        """The figures, as JSON holds them."""
        figures, faithful = self.figures, self.figures.get("faithfulness")
        return {
            "name": self.candidate.row,
            "calls": self.candidate.calls,
            "spacing": self.candidate.spacing,
            "frechet_distance": self.distance,
            "frechet_distances": [s["frechet_distance"].value for s in self.seeds if "frechet_distance" in s],
            "faithfulness": None if faithful is None else faithful.value,
            "path_error": self.path_error,
            "images_per_second": sum(c.samples / c.seconds for c in self.everyone if c.seconds),
            "figures": {name: figure.as_json() for name, figure in figures.items()},
        }


def best_rows(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """One row a name: of several spacings, the one with the smaller distance (or path error) counts."""
    best: dict[str, Measured] = {}
    for entry in measured:
        name = entry.candidate.row
        if name not in best or _figure(entry) < _figure(best[name]):
            best[name] = entry
    return [entry.row() for entry in best.values()]


def _figure(entry: Measured) -> float:
    return (entry.path_error or 0.0) if entry.distance is None else entry.distance
