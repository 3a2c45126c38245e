"""Path regression: the path student learns the exact states of the teacher's path, which BOOT has to bootstrap.

It is direct distillation (Luhman & Luhman, arXiv 2101.02388) at every time. Source: docs/method.md, "Path regression".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch

from bootdiff.config.mixins import StoredTrajectories
from bootdiff.core.turn import Turn
from bootdiff.data.sources import Batch, Source
from bootdiff.losses.distances import Distance, make_distance
from bootdiff.methods.base import Learner, Loss, Networks, OneLearner, learner_of
from bootdiff.methods.method import method
from bootdiff.methods.settings import DistillationSettings
from bootdiff.students import PathStudent
from bootdiff.teachers import Teacher


class PathSettings(StoredTrajectories, DistillationSettings):
    """The settings of path regression."""


@method("path", PathSettings, sources=("trajectories",))
@dataclass
class Path(OneLearner):
    """The objective L = E d(y_theta(eps, t), y_t) with y_t of the teacher's exact path, at its stored times.

    Args:
        student: the learner.
        source: noises with the states y_t of the teacher's paths at M times.
    """

    student: Learner
    source: Source
    distance: Distance

    @classmethod
    def from_settings(cls, teacher: Teacher, settings: PathSettings, source: Source, student: PathStudent) -> Self:
        """Return the objective with the objects that the settings' words stand for."""
        distance = make_distance(settings.distance, teacher.shape, settings.lpips_weights)
        return cls(learner_of(student, settings), source, distance)

    def losses(self, networks: Networks, turn: Turn, batch: Batch) -> Sequence[Callable[[], Loss]]:
        """Return the one term of the loss, at one of the stored times for each sample."""
        number = turn.draw.integers("state", len(batch.times)).to(batch.noise.device)
        t, y_t = batch.times[number], batch.states[torch.arange(len(number), device=number.device), number]
        return [lambda: self.regression("path", networks["student"](batch.noise, t, batch.condition), y_t)]
