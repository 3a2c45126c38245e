"""Latent consistency models: consistency distillation of Stable Diffusion with a guided step over many timesteps.

Luo et al., arXiv 2310.04378, Algorithm 1. The student is told its guidance weight and is sampled by LCMScheduler.
Source: docs/method.md, "Latent consistency models".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from pydantic import Field

from bootdiff.config.mixins import Sourcing, StoredPairs
from bootdiff.core.errors import BootdiffError
from bootdiff.data.sources import Source
from bootdiff.losses.grids import SkippingGrid
from bootdiff.methods.consistency import Consistency
from bootdiff.methods.method import method
from bootdiff.methods.settings import DistillationSettings
from bootdiff.samplers.few_step import table_length
from bootdiff.schedules import BetaTable
from bootdiff.students.boundary import LcmSkip
from bootdiff.students.consistency import ConsistencyStudent
from bootdiff.teachers import Teacher, adapter_of

#: the pipelines whose students LatentConsistencyModelPipeline, or the XL pipeline with LCMScheduler, can hold
LATENT = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
#: the guidance weights that the student is told, where none are asked for: the paper's 2 to 14, whose w is ours − 1
WEIGHTS = (3.0, 15.0)


class LcmSettings(StoredPairs, Sourcing, DistillationSettings):
    """The settings of latent consistency distillation."""

    usual_guidance: ClassVar[Sequence[float] | None] = WEIGHTS

    grid: int = Field(
        default=50, ge=2, le=1000, description="N, the times that are learned; the teacher steps over T / N timesteps"
    )
    target_decay: float = Field(
        default=0.95, ge=0, lt=1, description="mu, of the average that is the target; 0 = the student itself"
    )
    distance: Literal["l2", "l1", "huber", "lpips", "digits"] = Field(
        default="huber", description="between the answers at both points; digits: by the builtin digit classifier"
    )

    def check_teacher(self, teacher: Teacher) -> None:
        """Refuse a teacher that is no latent Stable Diffusion on a table of betas.

        Raises:
            BootdiffError: if it is none; the message says what to take instead.
        """
        super().check_teacher(teacher)
        adapter = adapter_of(teacher)
        kind = None if adapter is None else adapter.parts.pipeline_class
        if kind not in LATENT or not isinstance(teacher.schedule, BetaTable):
            met = "a plain network or a formula" if kind is None else f"a {kind}"
            raise BootdiffError(
                f"lcm is for latent Stable Diffusion 1.x, 2.x and XL with a table of betas, and {teacher.name} is "
                f"{met}; take --method consistency."
            )

    def path_ends(self, teacher: Teacher) -> tuple[float, float]:
        """Return both ends; t_max falls to the last of N timesteps that are evenly spaced, as LCMScheduler has them.

        Raises:
            BootdiffError: if N timesteps do not reach about as far, or the path ends above timestep 0.
        """
        low, high = super().path_ends(teacher)
        if not isinstance(teacher.schedule, BetaTable):
            return low, high
        length, last = table_length(teacher.schedule, high), teacher.schedule.num_timesteps - 1
        if low * last > 0.5:
            raise BootdiffError(f"lcm ends at timestep 0, as LCMScheduler does, not at {low:g}; leave t_min out.")
        if self.grid > length:
            raise BootdiffError(f"grid should be at most {length}, the timesteps up to t_max, got {self.grid}.")
        reached = length // self.grid * self.grid
        if reached < 0.95 * length:
            raise BootdiffError(
                f"grid {self.grid} does not divide the {length} timesteps up to t_max: it reaches {reached}; "
                "take another."
            )
        return low, (reached - 1) / last


@method("lcm", LcmSettings, sources=("pairs", "images"), student="consistency")
@dataclass
class Lcm(Consistency):
    """The objective of consistency distillation, with DDIM's step over T / N timesteps, guided by the told weight."""

    @classmethod
    def from_settings(  # type: ignore[override]
        cls, teacher: Teacher, settings: LcmSettings, source: Source, student: ConsistencyStudent
    ) -> Self:
        """Return the objective with the objects that the settings' words stand for.

        Raises:
            BootdiffError: if the run starts from a student of another boundary or of other times.
        """
        if not student.continued:
            student.boundary, student.points = LcmSkip(), settings.grid
        elif (student.boundary, student.points) != (LcmSkip(), settings.grid):
            raise BootdiffError(
                f"lcm goes on from an lcm student of the same grid, and this one has the boundary "
                f"{student.boundary.name} and {student.points or 'all'} times."
            )
        grid = SkippingGrid(student.schedule.num_timesteps, student.t_max, settings.grid, settings.target_decay)
        return cls.on(grid, teacher, settings, source, student)
