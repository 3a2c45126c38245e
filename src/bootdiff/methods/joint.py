"""A teacher and its one-step student trained together on images, without a pretrained teacher or a second stage.

The paper does not do this; it names "distillation-aware" training as future work. The teacher learns by denoising. The
student learns by BOOT's loss, from the teacher as it is at each step.

Source: docs/method.md, "A student trained with its teacher".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.core.turn import Turn
from bootdiff.data.sources import Batch, Images
from bootdiff.methods.base import Learner, Loss, Networks, Stateless
from bootdiff.methods.boot import Boot
from bootdiff.methods.denoising import Denoiser, Denoising


@dataclass
class Beside(Stateless):
    """The objective of two networks that learn in turns: the teacher's, and the student's beside it."""

    denoising: Denoising
    boot: Boot

    @property
    def source(self) -> Images:
        """Return the source of images; the student sees only their noises and conditions."""
        return self.denoising.source

    def learners(self) -> Mapping[str, Learner]:
        """Return the learners by name: the teacher and the student."""
        return {**self.denoising.learners(), **self.boot.learners()}

    def frozen(self) -> Sequence[nn.Module]:
        """Return the network of BOOT's distance, where it has one; the teacher is not frozen here."""
        return self.boot.frozen()[1:]

    def turns(self, step: int) -> Sequence[str]:
        """Return the names of a step's turns: the teacher's, then the student's."""
        return ("teacher", "student")

    def losses(self, networks: Networks, turn: Turn, batch: Batch) -> Sequence[Callable[[], Loss]]:
        """Return the terms of the turn's loss: denoising for the teacher, L_BS + beta L_BC for the student."""
        if turn.name == "teacher":
            return self.denoising.losses(networks, turn, batch)
        return self.boot.losses(networks, turn, embedded(batch, self.denoising))


class Both(nn.Module):
    """One network that serves as a denoiser and, with the target time's shift, as a student."""

    def __init__(self, denoiser: Denoiser, student: nn.Module) -> None:
        super().__init__()
        self.denoiser, self.student = denoiser, student

    def forward(self, x: Tensor, t: Tensor, condition: Condition, denoises: bool) -> Tensor:
        """Return the denoiser's raw output, or y_theta(x, t), (b, *shape).

        Both are calls of one method, because training by several processes needs that.
        """
        return (self.denoiser if denoises else self.student)(x, t, condition)


@dataclass
class Shared(Stateless):
    """The objective of one network that is teacher and student: the sum of both losses.

    Without a target time it is f(x_t, t), with one y_theta(eps, t).
    """

    denoising: Denoising
    boot: Boot
    both: Learner

    @property
    def source(self) -> Images:
        """Return the source of images."""
        return self.denoising.source

    def learners(self) -> Mapping[str, Learner]:
        """Return the learners by name: the one network."""
        return {"student": self.both}

    def frozen(self) -> Sequence[nn.Module]:
        """Return the network of BOOT's distance, where it has one."""
        return self.boot.frozen()[1:]

    def turns(self, step: int) -> Sequence[str]:
        """Return the names of a step's turns: one, the network's."""
        return ("student",)

    def losses(self, networks: Networks, turn: Turn, batch: Batch) -> Sequence[Callable[[], Loss]]:
        """Return the terms of the loss: denoising + L_BS + beta L_BC."""
        both = networks["student"]
        roles = {"teacher": partial(both, denoises=True), "student": partial(both, denoises=False)}
        terms = self.denoising.losses(roles, turn, batch)  # type: ignore[arg-type]
        return [*terms, *self.boot.losses(roles, turn, embedded(batch, self.denoising))]  # type: ignore[arg-type]


@torch.no_grad()
def embedded(batch: Batch, denoising: Denoising) -> Batch:
    """Return the batch with captions as embeddings, through which no gradient flows.

    The student does not train the captions' encoder.
    """
    denoiser = cast("Denoiser", denoising.teacher.module)
    return replace(batch, condition=denoiser.embed(batch.condition))
