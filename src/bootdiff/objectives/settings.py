"""What every distillation may be told, whatever its method."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from bootdiff.teachers import Clip, DynamicThreshold, Limit, NoLimit, Teacher
from bootdiff.training.settings import TrainingSettings


class DistillationSettings(TrainingSettings):
    """The path's ends, what is compared how, and the range of the targets."""

    t_min: float | None = Field(None, ge=0, le=1, description="time of the image; none = the teacher's first step")
    t_max: float | None = Field(None, ge=0, le=1, description="time of the noise; none = the last with alpha ≥ 0.02")
    distance: Literal["l2", "l1", "huber", "lpips", "digits"] = Field(
        "l2", description="between prediction and target; digits: perceptual, by the builtin digit classifier"
    )
    lpips_weights: str | None = Field(None, description="for distance lpips: a file or folder with VGG's and LPIPS's")
    target_limit: Literal["teacher", "none", "clip", "dynamic"] = Field(
        "teacher", description="how the targets' x_0 is limited: as the teacher's scheduler says, or otherwise"
    )
    dynamic_ratio: float = Field(0.995, gt=0, le=1, description="for target_limit dynamic: the quantile of |x_0|")
    dynamic_maximum: float = Field(100.0, ge=1, description="for target_limit dynamic: the largest divisor")

    @property
    def span(self) -> float:
        """t_max − t_min, as far as they are known."""
        return (1.0 if self.t_max is None else self.t_max) - (self.t_min or 0.0)

    @model_validator(mode="after")
    def _times_rise(self) -> DistillationSettings:
        if self.span <= 0:
            raise ValueError(f"t_min must be below t_max, got t_min = {self.t_min or 0:g} and t_max = {self.t_max:g}")
        return self


def target_limit(settings: DistillationSettings, teacher: Teacher) -> Limit:
    """How the targets' x_0 is clipped or thresholded."""
    dynamic = DynamicThreshold(settings.dynamic_ratio, settings.dynamic_maximum)
    limits: dict[str, Limit] = {"teacher": teacher.limit, "none": NoLimit(), "clip": Clip(), "dynamic": dynamic}
    return limits[settings.target_limit]
