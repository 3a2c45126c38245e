"""A teacher and its one-step student trained together on images: no pretrained teacher, no second stage.

Not in the paper, which names "distillation-aware" training as future work. The teacher learns by denoising; the student
learns BOOT's loss from the teacher as it stands at each step.

Source: docs/method.md, "A student trained with its teacher".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

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
    """Two networks in turns: the teacher's, and the student's beside it."""

    denoising: Denoising
    boot: Boot

    @property
    def source(self) -> Images:
        """Images; the student sees their noises and conditions only."""
        return self.denoising.source

    def learners(self) -> Mapping[str, Learner]:
        """The teacher and the student."""
        return {**self.denoising.learners(), **self.boot.learners()}

    def frozen(self) -> Sequence[nn.Module]:
        """What BOOT's distance asks; the teacher is not frozen here."""
        return self.boot.frozen()[1:]

    def turns(self, step: int) -> Sequence[str]:
        """The teacher first."""
        return ("teacher", "student")

    def losses(self, networks: Networks, turn: Turn, batch: Batch) -> Sequence[Callable[[], Loss]]:
        """Denoising for the teacher, L_BS + beta L_BC for the student."""
        if turn.name == "teacher":
            return self.denoising.losses(networks, turn, batch)
        return self.boot.losses(networks, turn, embedded(batch, self.denoising))


class Both(nn.Module):
    """One network as a denoiser and, with the target time's shift, as a student."""

    def __init__(self, denoiser: Denoiser, student: nn.Module) -> None:
        super().__init__()
        self.denoiser, self.student = denoiser, student

    def forward(self, x: Tensor, t: Tensor, condition: Condition, denoises: bool) -> Tensor:
        """The denoiser's raw output, or y_theta(x, t); both by one method, as several processes need it."""
        return (self.denoiser if denoises else self.student)(x, t, condition)


@dataclass
class Shared(Stateless):
    """One network: f(x_t, t) without a target time, y_theta(eps, t) with one. Its loss is the sum of both."""

    denoising: Denoising
    boot: Boot
    both: Learner

    @property
    def source(self) -> Images:
        """Images."""
        return self.denoising.source

    def learners(self) -> Mapping[str, Learner]:
        """One network learns."""
        return {"student": self.both}

    def frozen(self) -> Sequence[nn.Module]:
        """What BOOT's distance asks."""
        return self.boot.frozen()[1:]

    def turns(self, step: int) -> Sequence[str]:
        """One turn a step."""
        return ("student",)

    def losses(self, networks: Networks, turn: Turn, batch: Batch) -> Sequence[Callable[[], Loss]]:
        """Denoising + L_BS + beta L_BC."""
        both = networks["student"]
        roles = {"teacher": partial(both, denoises=True), "student": partial(both, denoises=False)}
        terms = self.denoising.losses(roles, turn, batch)  # type: ignore[arg-type]
        return [*terms, *self.boot.losses(roles, turn, embedded(batch, self.denoising))]  # type: ignore[arg-type]


@torch.no_grad()
def embedded(batch: Batch, denoising: Denoising) -> Batch:
    """Captions as embeddings: the student does not train their encoder."""
    denoiser = denoising.teacher.module
    assert isinstance(denoiser, Denoiser)
    return replace(batch, condition=denoiser.embed(batch.condition))
