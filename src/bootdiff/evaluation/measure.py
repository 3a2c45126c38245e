"""The measuring of one candidate on one noise seed, with the same noises and conditions for all candidates.

The work is split over processes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.core.device import in_float64, wait_for
from bootdiff.core.randomness import SampleNoise
from bootdiff.data.conditions import Conditions
from bootdiff.evaluation.processes import gathered, mine
from bootdiff.evaluation.tally import Judges, Tally
from bootdiff.metrics.estimate import Estimate
from bootdiff.samplers.base import all_noises, drawn_before, sampled
from bootdiff.samplers.rows import Candidate
from bootdiff.teachers import Teacher, adapter_of

#: the number of noises of a seed whose path error is measured
PATH_NUM = 128

Figures = Mapping[str, Estimate]


@dataclass(frozen=True)
class Work:
    """A batch of noises and conditions that every candidate samples.

    Args:
        eps: the noises, (b, *shape).
        condition: the noises' conditions.
        decode: turns samples into images, which latents need.
        labels: the classes that were asked for, (b,), if there are any.
        texts: the prompts, if there are any.
        groups: (b,): equal for samples that were asked for the same; the prompt's number, or the class.
        start: the number of the first sample.
        noise: all noises of the samples, for a sampler that draws some between its calls; None has the first ones only.
    """

    eps: Tensor
    condition: Condition
    decode: Callable[[Tensor], Tensor]
    labels: Tensor | None = None
    texts: Sequence[str] | None = None
    groups: Tensor | None = None
    start: int = 0
    noise: SampleNoise | None = None

    def first(self, num: int) -> Work:
        """Return the batch's first ``num`` samples only."""
        labels = None if self.labels is None else self.labels[:num]
        texts = None if self.texts is None else self.texts[:num]
        groups = None if self.groups is None else self.groups[:num]
        noise, condition = None if self.noise is None else self.noise.first(num), self.condition.index(slice(num))
        return Work(self.eps[:num], condition, self.decode, labels, texts, groups, self.start, noise)

    def sampled(self, candidate: Candidate) -> Tensor:
        """Return a candidate's samples of this batch, (b, *shape)."""
        if self.noise is None:
            return candidate.sample(self.eps, self.condition)
        return sampled(candidate.sample, self.noise, self.condition)


@dataclass(frozen=True)
class Listed:
    """The conditions of samples, one after the other, and what is known of them.

    Args:
        labels: the classes that the conditions ask for, if the conditions are no labels themselves.
        texts: the prompts behind the conditions.
    """

    conditions: Conditions
    labels: Sequence[int] | None = None
    texts: Sequence[str] | None = None


def work_of(teacher: Teacher, listed: Listed, seed: int, num: int, size: int) -> Iterator[Work]:
    """Yield the batches of one noise seed."""
    adapter = adapter_of(teacher)
    decode = adapter.decode if adapter is not None else lambda samples: samples
    for noise in all_noises(seed, num, teacher.shape, size, drawn_before(adapter)):
        eps, first = noise.eps, noise.start
        condition = listed.conditions.listed(seed, first, first + len(eps)).to(eps.device)
        asked, labels, texts = condition.get("classes"), listed.labels, listed.texts
        numbers = range(first, first + len(eps))
        if labels is not None:
            asked = torch.tensor([labels[i % len(labels)] for i in numbers])
        words = None if texts is None else [texts[i % len(texts)] for i in numbers]
        groups = asked if texts is None else torch.tensor([i % len(texts) for i in numbers])
        yield Work(eps, condition, decode, asked, words, groups, first, noise)


@dataclass
class Errors:
    """The squared differences to a path's ends: their number, their sum, and the sum of their squares."""

    count: int = 0
    squared: float = 0.0
    fourth: float = 0.0

    def add(self, samples: Tensor, truth: Tensor) -> None:
        """Add samples (n, *shape), of which the first m are compared with ``truth`` (m, *shape)."""
        errors = in_float64((samples[: len(truth)] - truth).square().flatten(1).mean(1))
        self.count += len(truth)
        self.squared += float(errors.sum())
        self.fourth += float(errors.square().sum())

    def estimate(self) -> Estimate:
        """Return the mean, with an interval of ± 1.96 standard errors."""
        mean = self.squared / self.count
        variance = max(0.0, self.fourth / self.count - mean**2)
        error = math.sqrt(variance / (self.count - 1)) if self.count > 1 else None
        return Estimate.around(mean, error, self.count, "mean squared difference to the path's end", lowest=0)


@torch.no_grad()
def measure(
    candidate: Candidate,
    batches: Iterable[Work],
    judges: Judges,
    truth: Callable[[Work], Tensor | None] = lambda work: None,
    advance: Callable[[int], object] = lambda steps: None,
) -> dict[str, Estimate] | None:
    """Return the figures of one candidate on one noise seed.

    Args:
        batches: all batches of the seed, of which every process makes some.
        truth: returns the path's ends for the first noises of a batch, (m, *shape), or None.
        advance: is called after every batch, with the number of calls that an image takes.

    Returns:
        The figures by name; None if a sample is not finite.
    """
    tally, errors, finite = Tally(), Errors(), True
    for work in mine(batches):
        samples = work.sampled(candidate)
        finite = finite and bool(torch.isfinite(samples).all())
        ends = truth(work) if candidate.same_path else None
        if finite and ends is not None and bool(torch.isfinite(ends).all()):
            errors.add(samples, ends)
        if finite and judges:
            tally.add(judges, work.decode(samples), work)
        advance(candidate.row.calls)
    if not all(gathered(finite)):
        return None
    figures = {}
    if judges:
        first, *others = gathered(tally)
        for other in others:
            first.merge(other)
        figures = first.figures(judges)
    together = Errors()
    for part in gathered(errors):
        together = Errors(together.count + part.count, together.squared + part.squared, together.fourth + part.fourth)
    return {**figures, "path_error": together.estimate()} if together.count else figures


@torch.no_grad()
def speed(candidate: Candidate, work: Work) -> float:
    """Return the images that all processes together make in a second on this machine.

    One batch is timed, after a warm-up.
    """
    work.first(1).sampled(candidate)
    wait_for(work.eps.device)
    started = time.perf_counter()
    samples = work.sampled(candidate)
    wait_for(samples.device)
    return sum(gathered(len(samples) / (time.perf_counter() - started)))


def measured_row(candidate: Candidate, seeds: Sequence[Figures], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as JSON holds it: what it is, its figures as means over noise seeds, and ``more``."""
    names = [name for name in seeds[0] if all(name in seed for seed in seeds)]
    figures = {name: Estimate.mean_of([seed[name] for seed in seeds]) for name in names}

    def value(name: str) -> float | None:
        return figures[name].value if name in figures else None

    row = candidate.row
    return {
        "name": row.name, **row.identity, "title": row.title,
        "best_of": row.best_of, **({"data_free": row.data_free} if row.kind == "student" else {}),
        "frechet_distance": value("frechet_distance"),
        "frechet_distances": [seed["frechet_distance"].value for seed in seeds if "frechet_distance" in seed],
        "faithfulness": value("faithfulness"), "path_error": value("path_error"), **more,
        "figures": {name: figure.as_json() for name, figure in figures.items()},
    }  # fmt: skip
