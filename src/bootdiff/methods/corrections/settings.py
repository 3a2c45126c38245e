"""The settings that every correction has, and checks of the teachers that they fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from bootdiff.core.errors import BootdiffError
from bootdiff.methods.boot import BootLoss
from bootdiff.methods.settings import DistillationSettings, check_gradients
from bootdiff.teachers import Teacher, adapter_of
from bootdiff.teachers.guidance import guidance_of


class CorrectionSettings(BootLoss, DistillationSettings):
    """A correction's own settings, and those of the BOOT loss that is kept."""

    steps: int = Field(
        default=400, ge=1, description="steps; in the first fake_warmup of them the student does not learn"
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
    fake_warmup: int = Field(default=50, ge=0, description="first steps, in which the student does not learn yet")
    fake_rank: int = Field(
        default=0,
        ge=0,
        description="of low-rank updates that make the fake of the teacher (not with guidance_range); 0 = a copy",
    )
    beta1: float = Field(default=0.5, ge=0, lt=1, description="AdamW's first beta, of all networks")
    boot_weight: float = Field(default=0.2, ge=0, le=1e6, description="of the BOOT loss that is kept; 0 = none")
    noise_levels: list[float] = Field(
        default=[0.35, 0.95],
        min_length=2,
        max_length=2,
        description="[LOW, HIGH]: times at which teacher and fake are compared",
    )
    noise_scale: float = Field(
        default=1.0,
        ge=0.5,
        le=1.5,
        description="deviation of the noise of the training, where images are made from 1; below 1 they are more "
        "varied and less precise",
    )
    guidance_interval: list[float] | None = Field(
        default=None,
        min_length=2,
        max_length=2,
        description="[LOW, HIGH]: times at which the compared teacher is guided",
    )

    @property
    def passes(self) -> float:
        """Return what a step is declared to cost in passes of the batch, of which looks may take a small share.

        These are the fake's turns, the student's, and BOOT's loss where it is kept.
        """
        return 4 * self.fake_updates + 5 + (super().passes if self.boot_weight else 0)

    @property
    def anchored(self) -> bool:
        """Whether BOOT's loss is kept, and holds the student's answers at t_max."""
        return self.boot_weight > 0 and self.boundary_weight > 0

    @property
    def warm_from(self) -> int:
        """Return the step from which the student learns at its full rate, which follows the fake's first steps."""
        return self.fake_warmup + self.warmup_steps

    @model_validator(mode="after")
    def _the_student_learns(self) -> Self:
        if self.fake_warmup >= self.steps:
            raise BootdiffError(
                f"the fake denoiser learns alone in the first {self.fake_warmup} steps (fake_warmup), which are all "
                f"of the {self.steps}; take more steps, or a shorter fake_warmup (--set fake_warmup=N)."
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
        """Refuse a teacher that these settings do not fit.

        That is one that does not have the levels, that has no guidance for an interval of it, or that would need
        gradients through float16.
        """
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
        if self.fake_rank or self.differentiates_teacher:
            check_gradients(teacher, "fake_rank" if self.fake_rank else "this method")

    def cautions(self, teacher: Teacher) -> Sequence[str]:
        """Return a sentence if a guided correction of a class-conditional teacher would lose recall."""
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
        """Return what the objective has beyond every correction's fields, by its field."""
        return {}

    @property
    def differentiates_teacher(self) -> bool:
        """Whether gradients pass through the teacher."""
        return False
