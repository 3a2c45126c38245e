"""The fixed noises from which every look starts, and the samples that a student makes from them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.core.randomness import sample_noise
from bootdiff.data.conditions import Conditions
from bootdiff.monitoring.watch_plan import EXACT
from bootdiff.samplers.one_call import PathSampler
from bootdiff.samplers.several import looked_at
from bootdiff.students import Student
from bootdiff.teachers.features import TeacherFeatures

#: the noises' seed, from which no user's samples start; torch's CPU generators see only a seed's lowest 32 bits
SEED = 0xB007_D1FF
#: the number of values in a batch of noises that any network can take
MOST_VALUES_AT_ONCE = 2**19


@dataclass(frozen=True)
class Noises:
    """Noises and their conditions, which are the same at every look.

    Args:
        shape: the shape of one noise, without the batch.
        conditions: the samples' conditions; the first half of the noises and the second share them.
        count: the number of noises.
    """

    shape: Sequence[int]
    conditions: Conditions
    count: int

    def batches(self, first: int | None = None) -> Iterator[tuple[Tensor, Condition]]:
        """Yield all noises, or the first few, with their conditions, in batches that any network can take."""
        count = self.count if first is None else first
        # No batch goes on beyond the noises whose path is solved exactly.
        size = max(1, min(EXACT, MOST_VALUES_AT_ONCE // math.prod(self.shape)))
        for start in range(0, count, size):
            stop = min(count, start + size)
            yield sample_noise(SEED, start, stop, tuple(self.shape)), self._conditions_of(start, stop)

    def _conditions_of(self, start: int, stop: int) -> Condition:
        half = self.count // 2
        cuts = sorted({start, stop, *([half] if start < half < stop else [])})
        parts = [self.conditions.listed(SEED, low % half, low % half + high - low) for low, high in pairwise(cuts)]
        return parts[0] if len(parts) == 1 else Condition.cat(parts)


class Samples(NamedTuple):
    """What a student makes from noises, on the CPU: the samples, their views and their textures (``views_of``)."""

    values: Tensor
    views: Tensor
    textures: Tensor


def samples_of(
    student: Student,
    noises: Noises,
    features: TeacherFeatures | None = None,
    t: float | None = None,
    first: int | None = None,
) -> Samples:
    """Return the student's answers to all noises, or to the first few.

    Args:
        features: the features that views are read by; None takes the samples' own values.
        t: the time of a path student's answers; the image's if not given.
    """
    device, parts = next(student.parameters()).device, []
    sampler = looked_at(student).sample if t is None else PathSampler(student, t)
    for eps, condition in noises.batches(first):
        made = sampler(eps.to(device), condition.to(device))
        parts.append((made.cpu(), *views_of(features, made, condition.to(device))))
    return Samples(*(torch.cat(part) for part in zip(*parts, strict=True)))


def views_of(features: TeacherFeatures | None, samples: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
    """Return the views (n, d) and textures (n, c) by which distributions are compared, on the CPU.

    They are the teacher's features. Without features the views are the samples' own values, and there are no textures.
    """
    if features is None:
        return samples.flatten(1).cpu(), torch.empty(len(samples), 0)
    with features.textures() as textures:
        views = features.read(samples, condition)
    return views.cpu(), textures[-1].cpu() if textures else torch.empty(len(samples), 0)
