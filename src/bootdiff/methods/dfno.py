"""DFNO: one pass answers for the whole trajectory, with layers that mix its times (Zheng et al., arXiv 2211.13449).

Source: docs/method.md, "DFNO".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from bootdiff.config.mixins import StoredTrajectories
from bootdiff.core.turn import Turn
from bootdiff.data.sources import Batch, Source
from bootdiff.losses.distances import Distance, make_distance
from bootdiff.methods.base import Learner, Loss, Networks, OneLearner, learner_of
from bootdiff.methods.method import method
from bootdiff.methods.settings import DistillationSettings
from bootdiff.solvers import even_times
from bootdiff.students.trajectory import TrajectoryStudent
from bootdiff.teachers import Teacher


class DfnoSettings(StoredTrajectories, DistillationSettings):
    """The settings of DFNO."""


@method("dfno", DfnoSettings, ("trajectories",), student="trajectory")
@dataclass
class Dfno(OneLearner):
    """The objective E (1/M) Σ_m d(g_theta(eps)_m, y_{t_m}): all states of the teacher's path at once.

    Args:
        student: the learner, which answers at the M times of the trajectories.
        source: noises with the states y_t of the teacher's paths at these times.
    """

    student: Learner
    source: Source
    distance: Distance

    @classmethod
    def from_settings(
        cls, teacher: Teacher, settings: DfnoSettings, source: Source, student: TrajectoryStudent
    ) -> Self:
        """Return the objective with the objects that the settings' words stand for."""
        student.answer_at(even_times(settings.trajectory_times - 1, student.t_min, student.t_max))
        distance = make_distance(settings.distance, teacher.shape, settings.lpips_weights)
        return cls(learner_of(student, settings), source, distance)

    def losses(self, networks: Networks, turn: Turn, batch: Batch) -> Sequence[Callable[[], Loss]]:
        """Return the one term of the loss, which needs no target but the stored states."""
        states = batch.states.flatten(0, 1)

        def paths() -> Loss:
            answers = networks["student"](batch.noise, None, batch.condition)
            return self.regression("trajectory", answers.flatten(0, 1), states)

        return [paths]
