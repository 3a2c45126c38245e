"""Progressive distillation: each round halves the calls of an image (Salimans & Ho, arXiv 2202.00512).

The student of a round learns to do in one DDIM step what its teacher does in two; then it is the teacher itself.
Source: docs/method.md, "Progressive distillation".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from pydantic import Field, model_validator

from bootdiff.config.mixins import Rounds, Sourcing, StoredPairs
from bootdiff.core.errors import BootdiffError
from bootdiff.core.turn import Turn
from bootdiff.data.sources import Batch, Source
from bootdiff.losses.distances import Distance, make_distance
from bootdiff.losses.steps import Steps
from bootdiff.methods.base import Learner, Loss, Networks, OneLearner, learner_of
from bootdiff.methods.method import Stage, method, rounds
from bootdiff.methods.settings import DistillationSettings, target_limit
from bootdiff.samplers.few_step import halved_steps, table_length
from bootdiff.schedules import BetaTable
from bootdiff.solvers import noisy, signal_of_step, step_between
from bootdiff.students.denoising import DenoisingStudent
from bootdiff.teachers import Teacher, limited


class ProgressiveSettings(Rounds, StoredPairs, Sourcing, DistillationSettings):
    """The settings of progressive distillation."""

    start_calls: int = Field(
        default=8, ge=1, le=512, description="calls of the first round's student, a power of two; the rest are halves"
    )
    snr_weight: Literal["truncated", "plus-one"] = Field(
        default="truncated", description="of the loss: max(SNR, 1), or SNR + 1, with SNR = alpha² / sigma²"
    )

    @model_validator(mode="after")
    def _halves(self) -> Self:
        if self.start_calls & (self.start_calls - 1):
            raise BootdiffError(f"start_calls should be a power of two, such as 8 or 16, got {self.start_calls}.")
        return self

    def path_ends(self, teacher: Teacher) -> tuple[float, float]:
        """Return both ends; on a table of betas t_max falls to where the calls divide the table."""
        low, high = super().path_ends(teacher)
        if not isinstance(teacher.schedule, BetaTable):
            return low, high
        last = teacher.schedule.num_timesteps - 1
        length = table_length(teacher.schedule, high) // self.start_calls * self.start_calls
        while length and not bool(teacher.usable(torch.tensor([(length - 1) / last]))):
            length -= self.start_calls
        if length < 2:
            raise BootdiffError(f"start_calls {self.start_calls} are more than the timesteps up to t_max; lower them.")
        return low, (length - 1) / last


def stages(settings: ProgressiveSettings) -> Sequence[Stage]:
    """Return the rounds n8, n4, n2 and the last, n1; in each of them the student of the round before teaches."""
    calls = [settings.start_calls >> k for k in range(settings.start_calls.bit_length())]
    words = {f"n{count}": {"start_calls": count} for count in calls}
    return rounds("progressive", settings, words, DenoisingStudent.as_teacher, own_samples=False)


@method("progressive", ProgressiveSettings, ("pairs", "images"), student="denoising", stages=stages)
@dataclass
class Progressive(OneLearner):
    """The objective of a round, E w(t) d(x̃, x̂_theta(z_t, t)), with x̃ that leads in one step where two of f lead.

    Args:
        teacher: f, limited as the targets are: the run's teacher, or the student of the round before.
        student: the learner, which is made for the round's number of calls.
        snr_weight: w as a function of alpha² / sigma².
        steps: of each of the student's steps its time t, its middle and its end.
    """

    teacher: Teacher
    student: Learner
    source: Source
    distance: Distance
    snr_weight: str
    steps: Steps

    @classmethod
    def from_settings(
        cls, teacher: Teacher, settings: ProgressiveSettings, source: Source, student: DenoisingStudent
    ) -> Self:
        """Return the objective with the objects that the settings' words stand for."""
        student.made_for(settings.start_calls)
        distance = make_distance(settings.distance, teacher.shape, settings.lpips_weights)
        f, steps = limited(teacher, target_limit(settings, teacher)), Steps(halved_steps(student, settings.start_calls))
        return cls(f, learner_of(student, settings), source, distance, settings.snr_weight, steps)

    def losses(self, networks: Networks, turn: Turn, batch: Batch) -> Sequence[Callable[[], Loss]]:
        """Return the one term of the loss; its target is computed here, without gradients."""
        x, schedule, condition = batch.data, self.teacher.schedule, batch.condition
        (t, middle, _), (here, between, there) = self.steps(turn, schedule, x)
        with torch.no_grad():
            z_t = noisy(x, self.fresh(turn, batch), t, schedule)
            z_middle = step_between(z_t, self.teacher.x0(z_t, t, condition), here, between)
            z_s = step_between(z_middle, self.teacher.x0(z_middle, middle, condition), between, there)
            target = signal_of_step(z_t, z_s, here, there)
        snr = (here.alpha / here.sigma).square().flatten()
        weight = (snr.clamp(min=1) if self.snr_weight == "truncated" else snr + 1) ** (self.distance.degree / 2)
        return [lambda: self.regression("halving", networks["student"](z_t, t, condition), target, weight)]
