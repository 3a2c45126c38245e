"""ReFlow: paths are made straight by learning the lines between noises and the samples of the flow before.

Liu et al., arXiv 2209.03003. After the last flow one call learns its samples. Source: docs/method.md, "ReFlow".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from pydantic import Field

from bootdiff.config.mixins import Rounds, StoredPairs
from bootdiff.core.turn import Turn
from bootdiff.data.sources import Batch, Source
from bootdiff.losses.distances import Distance, make_distance
from bootdiff.methods.base import Learner, Loss, Networks, OneLearner, learner_of
from bootdiff.methods.method import Stage, method, rounds
from bootdiff.methods.settings import DistillationSettings
from bootdiff.solvers import noisy
from bootdiff.students.denoising import DenoisingStudent
from bootdiff.teachers import Teacher

#: the smallest tau = sigma / (alpha + sigma) by which the loss of a line is weighted, as 1 / tau²
LEAST_TAU = 0.05


class ReflowSettings(Rounds, StoredPairs, DistillationSettings):
    """The settings of ReFlow."""

    flows: int = Field(default=2, ge=1, le=9, description="k of the k-rectified flow: rounds that make paths straight")
    one_call: bool = Field(default=True, description="whether a last round learns the flow's end in one call")


def stages(settings: ReflowSettings) -> Sequence[Stage]:
    """Return the rounds flow1, flow2, …, and the last one, one-call; each learns pairs of the flow before it."""
    words = {f"flow{number}": {"flows": 1, "one_call": False} for number in range(1, settings.flows + 1)}
    last = {"one-call": {"flows": 1, "one_call": True}} if settings.one_call else {}
    return rounds("reflow", settings, {**words, **last}, DenoisingStudent.as_teacher)


@method("reflow", ReflowSettings, ("pairs",), student="denoising", stages=stages)
@dataclass
class Reflow(OneLearner):
    """The objective of a round, E d(v_theta, eps − x) on the line between a noise and its sample.

    With x_theta for the student's x_0 the velocity's error is that of x_0 divided by tau = sigma / (alpha + sigma), the
    time of the straight line, so that the loss is E d(x, x_theta(z_t, t)) / tau² on every noise schedule.
    The last round asks at t_max only.

    Args:
        student: the learner.
        one_call: whether this is the last round.
    """

    student: Learner
    source: Source
    distance: Distance
    one_call: bool

    @classmethod
    def from_settings(
        cls, teacher: Teacher, settings: ReflowSettings, source: Source, student: DenoisingStudent
    ) -> Self:
        """Return the objective with the objects that the settings' words stand for."""
        if settings.one_call:
            student.made_for(1)
        distance = make_distance(settings.distance, teacher.shape, settings.lpips_weights)
        return cls(learner_of(student, settings), source, distance, settings.one_call)

    def losses(self, networks: Networks, turn: Turn, batch: Batch) -> Sequence[Callable[[], Loss]]:
        """Return the one term of the loss, which needs no target but the pair's sample."""
        if self.one_call:
            return [lambda: self.regression("flow", self.image(networks, batch), batch.data)]
        student: DenoisingStudent = self.student.module  # type: ignore[assignment]
        t = student.t_min + (student.t_max - student.t_min) * turn.draw.uniform("t").to(batch.data.device)
        z_t = noisy(batch.data, batch.noise, t, student.schedule)
        alpha, sigma = student.schedule.alpha_sigma(t)
        weight = (sigma / (alpha + sigma)).clamp(min=LEAST_TAU) ** -self.distance.degree
        return [lambda: self.regression("flow", networks["student"](z_t, t, batch.condition), batch.data, weight)]
