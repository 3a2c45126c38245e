"""Drifting in the teacher's features: the student's images move towards the teacher's and away from one another.

Teacher-feature drifting (arXiv 2605.07327) of drifting models (Deng et al. 2026). Source: docs/method.md, "Drifting".
There is no fake network: the teacher's stored samples attract, and the batch's own images repel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from bootdiff.config.mixins import StoredPairs
from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.core.turn import Turn
from bootdiff.data.sources import Batch, Source
from bootdiff.losses.distances import Distance, make_distance
from bootdiff.methods.base import Learner, Loss, Networks, OneLearner, example_of, learner_of
from bootdiff.methods.method import ANY, method
from bootdiff.methods.settings import DistillationSettings, check_gradients
from bootdiff.solvers import noisy
from bootdiff.students import Student
from bootdiff.teachers import NetworkTeacher, Teacher, adapter_of
from bootdiff.teachers.features import TeacherFeatures

#: the next level of noise is this part of the range further: the golden section, which fills a range evenly
GOLDEN = 0.6180339887498949
#: what stands in the place of a distance where two samples do not belong together; exp(−APART) is zero
APART = 1e6


class DriftSettings(StoredPairs, DistillationSettings):
    """The settings of drifting."""

    radii: list[Annotated[float, Field(ge=1e-3, le=1e6)]] = Field(
        default=[0.05, 0.2, 1.0],
        min_length=1,
        max_length=8,
        description="of attraction and repulsion, in units of the mean distance of features; all are summed",
    )
    noise_levels: list[float] = Field(
        default=[0.02, 0.6],
        min_length=2,
        max_length=2,
        description="[LOW, HIGH]: times at which the teacher is shown the images",
    )
    pair_weight: float = Field(default=0.2, ge=0, le=1e6, description="of the regression on the pairs; 0 = none")

    @model_validator(mode="after")
    def _images_meet(self) -> Self:
        at_once = self.batch_size // self.gradient_accumulation
        if at_once < 2:
            raise BootdiffError(
                f"drift compares the images of a pass with one another, and batch_size {self.batch_size} in "
                f"{self.gradient_accumulation} passes leaves {at_once} in each; take a larger batch, or fewer passes."
            )
        return self

    @model_validator(mode="after")
    def _levels_rise(self) -> Self:
        low, high = self.noise_levels
        if not 0 <= low < high <= 1:
            raise BootdiffError(f"noise_levels should be [LOW, HIGH] with 0 ≤ LOW < HIGH ≤ 1, got {self.noise_levels}.")
        return self

    def check_teacher(self, teacher: Teacher) -> None:
        """Refuse a teacher without the levels, one whose samples never share a condition, and one in float16."""
        check_gradients(teacher)
        low, high = teacher.t_range
        if max(low, self.noise_levels[0]) >= min(high, self.noise_levels[1]):
            raise BootdiffError(
                f"noise_levels {self.noise_levels} are outside the times of {teacher.name}, {low:.3g} to {high:.3g}."
            )
        adapter = adapter_of(teacher)
        if adapter is not None and adapter.upscales:
            raise BootdiffError(
                f"drift compares images of one condition, and each image of {teacher.name} has one of its own; choose "
                "another method."
            )

    @property
    def reads_features(self) -> bool:
        """Whether the teacher's features are read: they are what drifts."""
        return True

    def cautions(self, teacher: Teacher) -> Sequence[str]:
        """Return a sentence for a teacher whose conditions may be different in every batch."""
        adapter = adapter_of(teacher)
        if adapter is None or adapter.takes == "nothing":
            return ()
        one, many = ("prompt", "prompts") if adapter.takes == "prompts" else ("class", "classes")
        return (
            f"drift compares images of one {one} with one another; a pass of {self.batch_size} images should hold "
            f"eight of each or more (of one, only pair_weight teaches), so take few {many} or a large batch_size.",
        )


@method("drift", DriftSettings, sources=("pairs",), student=ANY)
@dataclass
class Drift(OneLearner):
    """The objective mean_features E ‖phi(x_r) − SG[phi(x_r) + V]‖² + w E d(g_theta(eps), pair).

    The features phi are in units of their mean distance. V is the drift of a batch's features towards the teacher's and
    away from one another, of one condition.

    Args:
        teacher: whose features phi are.
        student: the learner; any student that makes an image in one call.
        source: pairs of noises and the teacher's samples.
        radii: of attraction and repulsion, in units of the mean distance.
        levels: the lowest and the highest time r at which the images are shown.
        pair_weight: w.
    """

    teacher: Teacher
    student: Learner
    source: Source
    distance: Distance
    radii: Sequence[float]
    levels: tuple[float, float]
    pair_weight: float

    def __post_init__(self) -> None:
        network = isinstance(self.teacher.denoiser, NetworkTeacher)
        time, example = self.teacher.t_range[0], example_of(self.teacher, self.source)
        #: None for a closed form, which has no features beside its answer
        self.features = TeacherFeatures.of_any(self.teacher, time, example) if network else None

    @classmethod
    def from_settings(cls, teacher: Teacher, settings: DriftSettings, source: Source, student: Student) -> Self:
        """Return the objective with the objects that the settings' words stand for."""
        if student.several:
            student.made_for(1)
        distance = make_distance(settings.distance, teacher.shape, settings.lpips_weights)
        low, high = settings.noise_levels
        first, last = teacher.t_range
        levels = max(low, first), min(high, last)
        return cls(
            teacher, learner_of(student, settings), source, distance, settings.radii, levels, settings.pair_weight
        )

    def losses(self, networks: Networks, turn: Turn, batch: Batch) -> Sequence[Callable[[], Loss]]:
        """Return the terms of the loss: the drift, and the regression on the pairs where it has a weight."""
        terms = [lambda: self.drifting(networks, turn, batch)]
        return [*terms, partial(self.held, networks, batch)] if self.pair_weight else terms

    def held(self, networks: Networks, batch: Batch) -> Loss:
        """Return the regression of the student's images on the teacher's samples of the same noises, weighted."""
        each = self.distance(self.image(networks, batch), batch.data).mean()
        return Loss(self.pair_weight * each, {"regression": each.detach()})

    def drifting(self, networks: Networks, turn: Turn, batch: Batch) -> Loss:
        """Return the loss whose gradient moves the images of fresh noises by the drift of their features."""
        if len(batch.noise) < 2:
            raise BootdiffError(
                "drift compares the images of a pass with one another, and a process has one of them; take a larger "
                "batch_size, or fewer processes."
            )
        fresh = Batch(self.fresh(turn, batch), batch.condition)
        images = self.image(networks, fresh)
        low, high = self.levels
        r = torch.full((len(images),), low + (high - low) * (GOLDEN * (turn.step + 1) % 1), device=images.device)
        # All are shown behind one noise, so that only what they show tells them apart.
        noise = turn.draw.normal("renoise", self.teacher.shape)[:1].to(images.device).expand_as(images)
        schedule = self.teacher.schedule
        own = self.views(noisy(images, noise, r, schedule), r, batch.condition)
        with torch.no_grad():
            theirs = self.views(noisy(batch.data, noise, r, schedule), r, batch.condition)
            same = together(batch.condition, len(images), images.device)
        losses, sizes = [], []
        for x, y in zip(own, theirs, strict=True):
            with torch.no_grad(), torch.autocast(x.device.type, enabled=False):  # small differences of large products
                scale = torch.cdist(x, y)[same].mean().clamp(min=1e-8)
                moves = [drift(x / scale, y / scale, radius, same) for radius in self.radii]
                move = torch.stack(moves).sum(0)
                size = move.square().sum(1).mean().sqrt()
                target = x / scale + move
            losses.append((x / scale - target).square().sum(1).mean())
            sizes.append(size)
        return Loss(torch.stack(losses).mean(), {"drift": torch.stack(sizes).mean()})

    def views(self, x_r: Tensor, r: Tensor, condition: Condition) -> list[Tensor]:
        """Return what the teacher sees of noisy images at times r, each (b, d): its features and its answer."""
        if self.features is None:
            return [x_r.flatten(1), self.teacher.x0(x_r, r, condition).flatten(1)]
        middle, x_0 = self.features.shown(x_r, r, condition)
        return [middle.flatten(1), x_0.flatten(1)]


def drift(x: Tensor, y: Tensor, radius: float, same: Tensor) -> Tensor:
    """Return the drift of features x (b, d) towards y (m, d) and away from the other x, (b, d).

    It is Σ_jk a_ij b_ik (y_j − x_k), whose weights a and b are normalised over attraction and repulsion together, by
    rows and by columns. Where x and y are many samples of one distribution, y_j and x_k can change places, so that its
    mean is zero; of fewer than eight it is not quite, because a sample does not repel itself.

    Args:
        radius: of the kernel exp(−distance / radius).
        same: (b, m), whether two samples have one condition; others neither attract nor repel.
    """
    x, y = x.float(), y.float()
    near, apart = torch.cdist(x, y), torch.cdist(x, x)
    alone = torch.eye(len(x), dtype=torch.bool, device=x.device)
    others = torch.cat([same, same & ~alone], dim=1)
    logits = torch.where(others, -torch.cat([near, apart], dim=1) / radius, -APART)
    weights = (logits.softmax(1) * logits.softmax(0)).sqrt()
    weights = weights * others
    attracts, repels = weights.split([len(y), len(x)], dim=1)
    towards = (attracts * repels.sum(1, keepdim=True)) @ y
    return towards - (repels * attracts.sum(1, keepdim=True)) @ x


def together(condition: Condition, count: int, device: torch.device) -> Tensor:
    """Return which samples of a batch have one condition, (count, count); a guidance weight may differ."""
    same = torch.ones(count, count, dtype=torch.bool, device=device)
    for name, values in condition.items():
        if name != "guidance":
            group = values.reshape(count, -1).unique(dim=0, return_inverse=True)[1]
            same &= group[:, None] == group[None]
    return same
