"""Consistency distillation: the answers at two neighbouring points of a path become one (arXiv 2303.01469).

Song et al., arXiv 2303.01469, Algorithm 2. Source: docs/method.md, "Consistency distillation".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from pydantic import Field

from bootdiff.config.mixins import Sourcing, StoredPairs
from bootdiff.core.turn import Turn
from bootdiff.data.sources import Batch, Source
from bootdiff.losses.distances import Distance, make_distance
from bootdiff.losses.grids import Grid, GridSettings, TimePairs
from bootdiff.methods.base import Learner, Loss, Networks, OneLearner, learner_of
from bootdiff.methods.method import method
from bootdiff.methods.settings import DistillationSettings, target_limit
from bootdiff.methods.targets import target_of, with_target
from bootdiff.solvers import noisy, teacher_step
from bootdiff.students.consistency import ConsistencyStudent
from bootdiff.teachers import Teacher, limited


class ConsistencySettings(GridSettings, StoredPairs, Sourcing, DistillationSettings):
    """The settings of consistency distillation."""

    solver: Literal["euler", "heun"] = Field(default="heun", description="of the teacher's step: first or second order")
    target_side: Literal["teacher", "student"] = Field(
        default="teacher", description="the averaged network answers where the teacher stepped to, or where it began"
    )


@method("consistency", ConsistencySettings, sources=("pairs", "images"), student="consistency")
@dataclass
class Consistency(OneLearner):
    """The objective E w d(g_theta(x_t, t), g_theta⁻(x̂_s, s)), where one step of the teacher leads from x_t to x̂_s.

    Args:
        teacher: f, limited as the targets are.
        student: the learner; its average ``target`` is theta⁻, or without one theta itself.
        grid: the times t and s, and the weight w.
        second_order: whether the step is Heun's.
        target_side: whose point theta⁻ is asked at, the teacher's x̂_s or the student's x_t.
    """

    teacher: Teacher
    student: Learner
    source: Source
    distance: Distance
    grid: TimePairs
    second_order: bool
    target_side: str

    @classmethod
    def from_settings(
        cls, teacher: Teacher, settings: ConsistencySettings, source: Source, student: ConsistencyStudent
    ) -> Self:
        """Return the objective with the objects that the settings' words stand for."""
        student.begin(settings.boundary, settings.grid)
        grid = Grid.of(settings, student)
        return cls.on(grid, teacher, settings, source, student, settings.solver == "heun", settings.target_side)

    @classmethod
    def on(
        cls,
        grid: TimePairs,
        teacher: Teacher,
        settings: Any,
        source: Source,
        student: ConsistencyStudent,
        second_order: bool = False,
        target_side: str = "teacher",
    ) -> Self:
        """Return the objective on a grid of times, with what all consistency distillations read of their settings."""
        return cls(
            limited(teacher, target_limit(settings, teacher)),
            with_target(learner_of(student, settings), grid.decay if grid.averages else None),
            source,
            make_distance(settings.distance, teacher.shape, settings.lpips_weights),
            grid,
            second_order,
            target_side,
        )

    def losses(self, networks: Networks, turn: Turn, batch: Batch) -> Sequence[Callable[[], Loss]]:
        """Return the one term of the loss; its target is computed here, without gradients."""
        t, s, weight = self.grid(turn, batch.data.device)
        noise = self.fresh(turn, batch)
        condition = batch.condition
        with torch.no_grad():
            x_t = noisy(batch.data, noise, t, self.teacher.schedule)
            x_s = teacher_step(self.teacher, x_t, t, s, condition, self.second_order)
        here, there = ((x_t, t), (x_s, s)) if self.target_side == "teacher" else ((x_s, s), (x_t, t))
        target = target_of(networks, self.student, *there, condition)
        return [lambda: self.regression("consistency", networks["student"](*here, condition), target, weight)]
