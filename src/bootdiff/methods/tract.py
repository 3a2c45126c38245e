"""TRACT: one call jumps over a group of the teacher's steps, with the help of its own average.

Berthelot et al., arXiv 2303.04248. In each phase the groups grow; the student of a phase is the teacher of the next.
Source: docs/method.md, "TRACT".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Self, cast

import torch
from pydantic import Field, model_validator

from bootdiff.config.mixins import Rounds, Sourcing, StoredPairs
from bootdiff.core.errors import BootdiffError
from bootdiff.core.turn import Turn
from bootdiff.data.sources import Batch, Source
from bootdiff.losses.distances import Distance, make_distance
from bootdiff.losses.steps import Steps
from bootdiff.methods.base import Learner, Loss, Networks, OneLearner, Steady, learner_of
from bootdiff.methods.method import Stage, method, rounds
from bootdiff.methods.settings import DistillationSettings, target_limit
from bootdiff.methods.targets import target_of, with_target
from bootdiff.samplers.few_step import even_steps, grouped
from bootdiff.schedules import expand
from bootdiff.solvers import noisy, signal_of_step, step_between
from bootdiff.students.jump import JumpStudent
from bootdiff.teachers import Teacher, limited


class TractSettings(Rounds, StoredPairs, Sourcing, DistillationSettings):
    """The settings of TRACT."""

    phases: list[Annotated[int, Field(ge=1, le=1024)]] = Field(
        default=[64, 8, 1], min_length=2, description="numbers of calls: the teacher's, then each phase's student's"
    )
    self_decay: float = Field(default=0.5, ge=0, lt=1, description="of the average that stands for the student itself")

    @property
    def final_calls(self) -> int:
        """Return the calls of the last phase's student."""
        return self.phases[-1]

    @model_validator(mode="after")
    def _groups(self) -> Self:
        for a, b in pairwise(self.phases):
            if a <= b or a % b:
                raise BootdiffError(f"phases should fall, each a multiple of the next, such as 64, 8, 1; got {a}, {b}.")
        return self


def stages(settings: TractSettings) -> Sequence[Stage]:
    """Return the phases, named after the calls of their students; the student of one is the teacher of the next."""
    words = {f"n{calls}": {"phases": [before, calls]} for before, calls in pairwise(settings.phases)}
    return rounds("tract", settings, words, _taught, own_samples=False)


def _taught(student: JumpStudent) -> Teacher:
    """Return the student of a phase as a teacher on the grid of its own calls."""
    steps = even_steps(student.calls, student.t_min, student.t_max)
    return student.as_teacher([*(step.t for step in steps), student.t_min])


@method("tract", TractSettings, ("pairs", "images"), student="jump", stages=stages)
@dataclass
class Tract(OneLearner):
    """The objective of a phase, E w d(x̃, x_theta(z_t, t → s)), with s the end of the group that t lies in.

    The target x̃ leads in one step to where one step of the teacher and then a jump of theta⁻ lead.

    Args:
        teacher: f, limited as the targets are: the run's teacher, or the student of the phase before.
        student: the learner; its average ``target`` is theta⁻.
        steps: of each of the teacher's steps its time t, its end t′ and the end s of its group.
    """

    teacher: Teacher
    student: Learner
    source: Source
    distance: Distance
    steps: Steps

    @classmethod
    def from_settings(cls, teacher: Teacher, settings: TractSettings, source: Source, student: JumpStudent) -> Self:
        """Return the objective with the objects that the settings' words stand for."""
        before, calls = settings.phases
        student.made_for(calls)
        learner = with_target(learner_of(student, settings), Steady(settings.self_decay))
        distance = make_distance(settings.distance, teacher.shape, settings.lpips_weights)
        steps = Steps(grouped(before, calls, student.t_min, student.t_max))
        return cls(limited(teacher, target_limit(settings, teacher)), learner, source, distance, steps)

    def losses(self, networks: Networks, turn: Turn, batch: Batch) -> Sequence[Callable[[], Loss]]:
        """Return the one term of the loss; its target is computed here, without gradients."""
        x, schedule, condition = batch.data, self.teacher.schedule, batch.condition
        (t, between, s), (here, middle, there) = self.steps(turn, schedule, x)
        end = torch.where(s < 0, cast("JumpStudent", self.student.module).t_min, s)  # what the student is told
        with torch.no_grad():
            z_t = noisy(x, self.fresh(turn, batch), t, schedule)
            z_between = step_between(z_t, self.teacher.x0(z_t, t, condition), here, middle)
            # A group's last step ends where the jump does, and nobody is asked on.
            done = between == s
            x_0 = target_of(networks, self.student, z_between, torch.where(done, t, between), end, condition)
            z_s = torch.where(expand(done, x), z_between, step_between(z_between, x_0, middle, there))
            target = signal_of_step(z_t, z_s, here, there)
        weight = (here.alpha / here.sigma).flatten().clamp(min=1) ** self.distance.degree
        return [lambda: self.regression("jump", networks["student"](z_t, t, end, condition), target, weight)]
