"""What every data-free correction shares: a student, a fake denoiser that follows its samples, and BOOT's loss kept.

A correction moves the distribution of the student's images to the teacher's; which noise makes which image is BOOT's
business, and is kept as far as its loss is (``boot_weight``).

Source: docs/method.md, "Corrections" and "Settings that corrections share".
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.core.turn import Turn
from bootdiff.data.conditions import Conditions
from bootdiff.data.sources import Batch
from bootdiff.methods.base import Learner, Loss, Networks, Stateless
from bootdiff.methods.boot import Boot, BootLoss
from bootdiff.methods.corrections.fake import Fake
from bootdiff.methods.settings import DistillationSettings
from bootdiff.schedules import expand
from bootdiff.solvers import noisy
from bootdiff.students import Student
from bootdiff.teachers import Teacher, adapter_of, guided_within, limit_of
from bootdiff.teachers.guidance import guidance_of


class CorrectionSettings(BootLoss, DistillationSettings):
    """A correction's own settings, and those of the BOOT loss that is kept."""

    steps: int = Field(
        default=400, ge=1, description="steps, of which the first fake_warmup are the fake denoiser's alone"
    )
    ema_decay: float = Field(default=0.99, ge=0, lt=1, description="of the averaged weights that are sampled; 0 = none")
    ema_from_start: bool = Field(
        default=False, description="average with ema_decay from the first step on, instead of a decay that rises to it"
    )
    learning_rate: float = Field(default=1e-4, gt=0, le=1, description="AdamW's rate of the student")
    lr_schedule: Literal["constant", "linear", "cosine"] = Field(
        default="cosine", description="how the rates fall to 0"
    )
    fake_learning_rate: float = Field(default=4e-4, gt=0, le=1, description="AdamW's rate of the fake denoiser")
    fake_updates: int = Field(
        default=3, ge=1, le=100, description="updates of the fake denoiser before each of the student"
    )
    fake_warmup: int = Field(default=50, ge=0, description="first steps, in which the fake denoiser alone learns")
    fake_rank: int = Field(
        default=0,
        ge=0,
        description="of low-rank updates that make the fake of the teacher (not with guidance_range); 0 = a copy",
    )
    beta1: float = Field(default=0.5, ge=0, lt=1, description="AdamW's first beta, of both")
    boot_weight: float = Field(default=0.2, ge=0, le=1e6, description="of the BOOT loss that is kept; 0 = none")
    noise_levels: list[float] = Field(
        default=[0.35, 0.95],
        min_length=2,
        max_length=2,
        description="[LOW, HIGH]: times at which teacher and fake are compared",
    )
    guidance_interval: list[float] | None = Field(
        default=None,
        min_length=2,
        max_length=2,
        description="[LOW, HIGH]: times at which the compared teacher is guided",
    )

    @property
    def passes(self) -> float:
        """The fake's turns, the student's, and BOOT's where it is kept."""
        return 4 * self.fake_updates + 5 + (super().passes if self.boot_weight else 0)

    @property
    def work(self) -> float:
        """The student has no turn while the fake alone learns."""
        return (self.passes * self.steps - (self.passes - 4 * self.fake_updates) * self.fake_warmup) * self.batch_size

    @property
    def warm_from(self) -> int:
        """After the fake's first steps, too."""
        return self.fake_warmup + self.warmup_steps

    @model_validator(mode="after")
    def _the_student_learns(self) -> Self:
        if self.fake_warmup >= self.steps:
            raise BootdiffError(
                f"the fake denoiser learns alone in the first {self.fake_warmup} steps (fake_warmup), which are all "
                f"of the {self.steps}; take more steps, or a shorter fake_warmup."
            )
        return self

    @model_validator(mode="after")
    def _ranges_rise(self) -> Self:
        for name, pair in (("noise_levels", self.noise_levels), ("guidance_interval", self.guidance_interval)):
            if pair is not None and not 0 <= pair[0] < pair[1] <= 1:
                raise BootdiffError(f"{name} should be [LOW, HIGH] with 0 ≤ LOW < HIGH ≤ 1, got {pair}.")
        if self.fake_rank and self.compile:
            raise BootdiffError(
                "fake_rank and compile exclude each other; a compiled network does not see the updates."
            )
        if self.fake_rank and self.guidance_range is not None:
            raise BootdiffError("fake_rank and guidance_range exclude each other; a shared network takes one weight.")
        return self

    def check_teacher(self, teacher: Teacher) -> None:
        """Refuse levels that the teacher does not have, an interval without guidance, and gradients through float16."""
        low, high = teacher.t_range
        if max(low, self.noise_levels[0]) >= min(high, self.noise_levels[1]):
            raise BootdiffError(
                f"noise_levels {self.noise_levels} are outside the times of {teacher.name}, {low:.3g} to {high:.3g}."
            )
        adapter = adapter_of(teacher)
        asked = self.guidance_scale not in (None, 1.0) or self.guidance_range is not None
        free = adapter is not None and adapter.guidance == "free" and asked
        if self.guidance_interval is not None and not free and guidance_of(teacher) is None:
            raise BootdiffError(
                f"guidance_interval says when {teacher.name} is guided, and it is not: give guidance_scale or "
                "guidance_range, or leave it out (a network that takes the weight as an input cannot be unguided)."
            )
        halves = any(p.dtype == torch.float16 for p in teacher.parameters())
        if halves and (self.fake_rank or self.differentiates_teacher):
            raise BootdiffError(
                "gradients through a float16 teacher vanish; load it with --dtype bfloat16 or float32 for "
                f"{'fake_rank' if self.fake_rank else 'this method'}."
            )

    def cautions(self, teacher: Teacher) -> Sequence[str]:
        """A guided correction of a class-conditional teacher loses recall."""
        adapter, own = adapter_of(teacher), guidance_of(teacher)
        classes = adapter is not None and adapter.takes == "classes"
        asked = self.guidance_range[1] if self.guidance_range is not None else self.guidance_scale
        weight = asked if asked is not None or own is None else own.weight
        if not classes or weight is None or weight <= 1:
            return ()
        return (
            f"guidance of {weight:g} in a correction of a class-conditional teacher costs recall (published for "
            "one call on ImageNet-256: FID 2.13 without guidance, 5.20 at 1.5, 15.7 at 4); 1 keeps its variety.",
        )

    @property
    def own(self) -> dict[str, Any]:
        """What the objective has beyond every correction's, by its field."""
        return {}

    @property
    def differentiates_teacher(self) -> bool:
        """Whether gradients pass through the teacher."""
        return False


@dataclass
class Correction(Stateless):
    """The student and the fake in turns.

    Args:
        boot: BOOT on the same student; its loss is kept with ``boot_weight``.
        teacher: f of the comparison: with guidance, and limited as the fake is.
        fake: the raw learner f_psi and its optimiser settings.
        fake_updates: turns of the fake before each of the student.
        fake_warmup: first steps, in which it alone learns: a fake that still is the teacher would send the student
            nowhere, and an optimiser that scales its gradients there at full speed.
        boot_weight: of the BOOT loss that is kept.
        levels: (lowest, highest) r of the comparison.
    """

    boot: Boot
    teacher: Teacher
    fake: Learner
    fake_updates: int = 2
    fake_warmup: int = 0
    boot_weight: float = 0.5
    levels: tuple[float, float] = (0.02, 0.98)

    def __post_init__(self) -> None:
        self.source, self.schedule, self.limit = self.boot.source, self.teacher.schedule, limit_of(self.teacher)
        low, high = self.teacher.t_range
        #: r at which the fake learns (no noise, nothing to learn); it is compared within them
        self.fake_levels = max(low, 1e-3), high
        self.levels = max(self.levels[0], self.fake_levels[0]), min(self.levels[1], high)

    @classmethod
    def from_settings(
        cls,
        teacher: Teacher,
        settings: CorrectionSettings,
        conditions: Conditions | None = None,
        student: Student | None = None,
    ) -> Self:
        """A student, its fake, and the objects that the settings' words stand for.

        Args:
            student: to correct; grown from the teacher where none is given.
        """
        boot = Boot.from_settings(teacher, settings, conditions, student)
        learner = cast("Student", boot.student.module)
        betas = (settings.beta1, 0.999)
        boot.student = replace(
            boot.student, betas=betas, ema_from_start=settings.ema_from_start, starts=settings.fake_warmup
        )
        fake = Fake.from_teacher(teacher, learner.learned.is_range, settings.fake_rank)
        return cls(
            boot,
            guided_within(boot.teacher, settings.guidance_interval),
            Learner(fake, settings.fake_learning_rate, betas),
            settings.fake_updates,
            settings.fake_warmup,
            settings.boot_weight,
            (settings.noise_levels[0], settings.noise_levels[1]),
            **settings.own,
        )

    def learners(self) -> Mapping[str, Learner]:
        """Two networks learn."""
        return {"student": self.boot.student, "fake": self.fake}

    def frozen(self) -> Sequence[nn.Module]:
        """BOOT's."""
        return (self.teacher, *self.boot.frozen())

    def turns(self, step: int) -> Sequence[str]:
        """The fake first, so that it knows the student that it judges."""
        fake = ["fake"] * self.fake_updates
        return fake if step < self.fake_warmup else [*fake, "student"]

    def losses(self, networks: Networks, turn: Turn, batch: Batch) -> Sequence[Callable[[], Loss]]:
        """Denoising of the student's samples for the fake; the correction and BOOT's loss for the student."""
        if turn.name == "fake":
            return [lambda: self.denoising(networks, turn, batch)]
        terms = [lambda: self.correction(networks, turn, batch)]
        if self.boot_weight > 0:
            kept = self.boot.losses(networks, turn, batch)
            terms.extend(partial(self._kept, term) for term in kept)
        return terms

    def denoising(self, networks: Networks, turn: Turn, batch: Batch) -> Loss:
        """E w(r) ‖f_psi(x_r, r) − x‖² on samples x = y_theta(eps, t_min), noised afresh."""
        fake, draw = networks["fake"], turn.draw
        with torch.no_grad():
            x = self.sample(networks, batch.noise, batch.condition)
        low, high = self.fake_levels
        r = low + (high - low) * draw.uniform("r")
        x_r = noisy(x, draw.normal("renoise", self.teacher.shape), r, self.schedule)
        error = (fake(x_r, r, batch.condition) - x).square().flatten(1).mean(1)
        weighted = cast("Fake", self.fake.module).weight(r) * error
        return Loss(weighted.mean(), {"fake": weighted.mean().detach()}, {"fake": (r, weighted.detach())})

    def correction(self, networks: Networks, turn: Turn, batch: Batch) -> Loss:
        """The difference between teacher and fake behind the student's samples, at levels r drawn here."""
        x = self.sample(networks, batch.noise, batch.condition)
        r = self.draw_levels(turn)
        x_r = noisy(x, turn.draw.normal("renoise", self.teacher.shape), r, self.schedule)
        loss, difference = self.compare(networks, x, x_r, r, batch.condition)
        return Loss(loss, {"correction": difference.mean()}, {"correction": (r, difference)})

    @abstractmethod
    def compare(
        self, networks: Networks, x: Tensor, x_r: Tensor, r: Tensor, condition: Condition
    ) -> tuple[Tensor, Tensor]:
        """(the scalar whose gradient corrects x, the mean squared difference of the two denoisers (b,), detached)."""

    def draw_levels(self, turn: Turn) -> Tensor:
        """r ~ U(levels), (b,)."""
        low, high = self.levels
        return low + (high - low) * turn.draw.uniform("r")

    def sample(self, networks: Networks, eps: Tensor, condition: Condition) -> Tensor:
        """x = y_theta(eps, t_min), not limited: what leaves the range of pixels must be pulled back."""
        return networks["student"](eps, torch.full((len(eps),), self.boot.t_min, device=eps.device), condition)

    def answers(self, networks: Networks, x_r: Tensor, r: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """(f, f_psi) at x_r, both limited in the same way."""
        return self.teacher.x0(x_r, r, condition), self.limit(networks["fake"](x_r, r, condition))

    def _kept(self, term: Callable[[], Loss]) -> Loss:
        loss = term()
        return replace(loss, total=self.boot_weight * loss.total)


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Means over a sample, floored and detached, as wide as ``like``: the normaliser mean |x − f|.

    Source: docs/method.md, "Distribution matching (C1)".
    """
    return expand(values.detach().abs().flatten(1).mean(1).clamp(min=1e-5), like)
