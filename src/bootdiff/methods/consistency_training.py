"""Consistency training: as consistency distillation, from images alone and without a teacher.

Song et al., arXiv 2303.01469, Algorithm 3; with ``configs/consistency-training-improved.yaml`` Song & Dhariwal, arXiv
2310.14189. Source: docs/method.md, "Consistency training".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from bootdiff.config.mixins import Sourcing, Untaught
from bootdiff.core.turn import Turn
from bootdiff.data.sources import Batch, Source
from bootdiff.losses.distances import Distance, make_distance
from bootdiff.losses.grids import Grid, GridSettings
from bootdiff.methods.base import Learner, Loss, Networks, OneLearner, learner_of
from bootdiff.methods.method import method
from bootdiff.methods.settings import DistillationSettings
from bootdiff.methods.targets import target_of, with_target
from bootdiff.schedules import Schedule
from bootdiff.solvers import noisy
from bootdiff.students.consistency import ConsistencyStudent
from bootdiff.teachers import Teacher


class ConsistencyTrainingSettings(GridSettings, Untaught, Sourcing, DistillationSettings):
    """The settings of consistency training."""


@method(*("consistency-training", ConsistencyTrainingSettings, ("images",)), needs_teacher=False, student="consistency")
@dataclass
class ConsistencyTraining(OneLearner):
    """The objective E w d(g_theta(x_t, t), g_theta⁻(x_s, s)), where both points have one image and one noise.

    Args:
        student: the learner; its average ``target`` is theta⁻, or without one theta itself.
        grid: the times t and s, and the weight w.
    """

    schedule: Schedule
    student: Learner
    source: Source
    distance: Distance
    grid: Grid

    @classmethod
    def from_settings(
        cls, teacher: Teacher, settings: ConsistencyTrainingSettings, source: Source, student: ConsistencyStudent
    ) -> Self:
        """Return the objective with the objects that the settings' words stand for; the teacher gives its schedule."""
        student.begin(settings.boundary, settings.grid)
        grid = Grid.of(settings, student)
        learner = with_target(learner_of(student, settings), grid.decay if grid.averages else None)
        distance = make_distance(settings.distance, teacher.shape, settings.lpips_weights)
        return cls(teacher.schedule, learner, source, distance, grid)

    def losses(self, networks: Networks, turn: Turn, batch: Batch) -> Sequence[Callable[[], Loss]]:
        """Return the one term of the loss; its target is computed here, without gradients."""
        t, s, weight = self.grid(turn, batch.data.device)
        noise = self.fresh(turn, batch)
        x_t, x_s = (noisy(batch.data, noise, time, self.schedule) for time in (t, s))
        target = target_of(networks, self.student, x_s, s, batch.condition)
        ask = networks["student"]
        return [lambda: self.regression("consistency", ask(x_t, t, batch.condition), target, weight)]
