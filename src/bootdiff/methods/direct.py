"""Direct distillation: one call learns the end of the teacher's path (Luhman & Luhman, arXiv 2101.02388).

Source: docs/method.md, "Direct distillation". The teacher's samples are made once, before they are learned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from bootdiff.config.mixins import StoredPairs
from bootdiff.core.turn import Turn
from bootdiff.data.sources import Batch, Source
from bootdiff.losses.distances import Distance, make_distance
from bootdiff.methods.base import Learner, Loss, Networks, OneLearner, learner_of
from bootdiff.methods.method import method
from bootdiff.methods.settings import DistillationSettings
from bootdiff.students.denoising import DenoisingStudent
from bootdiff.teachers import Teacher


class DirectSettings(StoredPairs, DistillationSettings):
    """The settings of direct distillation."""


@method("direct", DirectSettings, sources=("pairs",), student="denoising")
@dataclass
class Direct(OneLearner):
    """The objective L = E d(g_theta(eps), Solve(f, eps, t_max → t_min)), Eq. 3.

    Args:
        student: the learner.
        source: pairs of noises and the ends of the teacher's paths from them, or a sampler's images.
        distance: d.
    """

    student: Learner
    source: Source
    distance: Distance

    @classmethod
    def from_settings(
        cls, teacher: Teacher, settings: DirectSettings, source: Source, student: DenoisingStudent
    ) -> Self:
        """Return the objective with the objects that the settings' words stand for; the student learns t_max only."""
        student.made_for(1)
        distance = make_distance(settings.distance, teacher.shape, settings.lpips_weights)
        return cls(learner_of(student, settings), source, distance)

    def losses(self, networks: Networks, turn: Turn, batch: Batch) -> Sequence[Callable[[], Loss]]:
        """Return the terms of the loss: one, the regression of the student's images on the teacher's samples."""
        return [lambda: self.regression("regression", self.image(networks, batch), batch.data)]
