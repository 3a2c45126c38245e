"""What every distillation may be told, whatever its method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, model_validator

from bootdiff.config.settings import TrainingSettings
from bootdiff.core.guidance import GuidanceWeight
from bootdiff.data.conditions import NOISE_LEVEL
from bootdiff.teachers import Clip, DynamicThreshold, Limit, NoLimit, Teacher, adapter_of
from bootdiff.teachers.guidance import guidance_of

Weight = Annotated[float, Field(ge=0, le=1000)]


class DistillationSettings(TrainingSettings):
    """The path's ends, what is compared how, and the range of the targets."""

    t_min: float | None = Field(None, ge=0, le=1, description="time of the image; none = the teacher's first step")
    t_max: float | None = Field(None, ge=0, le=1, description="time of the noise; none = the last with alpha ≥ 0.02")
    distance: Literal["l2", "l1", "huber", "lpips", "digits"] = Field(
        "l2", description="between prediction and target; digits: perceptual, by the builtin digit classifier"
    )
    lpips_weights: str | None = Field(None, description="for distance lpips: a file or folder with VGG's and LPIPS's")
    target_limit: Literal["teacher", "none", "clip", "dynamic"] = Field(
        "teacher",
        description="how the targets' x_0 is limited: as the teacher's scheduler says (or start's were), or otherwise",
    )
    dynamic_ratio: float = Field(0.995, gt=0, le=1, description="for target_limit dynamic: the quantile of |x_0|")
    dynamic_maximum: float = Field(100.0, ge=1, description="for target_limit dynamic: the largest divisor")
    start: str | None = Field(None, description="a saved student to go on from; none = the teacher's own weights")
    prompts: str | None = Field(None, description="a file of prompts: text, CSV, TSV, JSON lines or parquet")
    prompt_column: str | None = Field(None, description="of the prompts file, where it has several")
    classes: list[NonNegativeInt] | None = Field(None, min_length=1, description="class labels; none = all of them")
    null_class: int | None = Field(None, ge=0, description="the label of a class teacher that stands for no class")
    guidance_scale: float | None = Field(None, ge=0, le=1000, description="w of Eq. 10; none = no guidance")
    guidance_range: list[Weight] | None = Field(
        None, min_length=2, max_length=2, description="[MIN, MAX]: the student takes w as an input, drawn from here"
    )
    export_guidance: float | None = Field(
        None, ge=0, le=1000, description="w in the export where its pipeline has no slot; none = the range's middle"
    )
    negative_prompt: str | None = Field(None, description="what guidance leads away from; none = the empty prompt")
    base: str | None = Field(None, description="for a super-resolution teacher: the run of its distilled base stage")
    noise_level: int = Field(
        NOISE_LEVEL, ge=0, lt=100_000, description="of the base's images, as a super-resolution timestep"
    )
    prompt_cache_gib: float = Field(8.0, ge=0, description="prompts are encoded once if that fits; 0 = in the loop")
    watch_every: int | None = Field(
        None,
        ge=0,
        description="steps between looks at the convergence; none = what 2 % of the time pays for; 0 = never",
    )
    stop_when: Literal["steps", "converged"] = Field(
        "steps", description="end at the last step, or at the first look that says converged"
    )
    keep: Literal["best", "last"] = Field(
        "best",
        description="which state becomes the student: the best look's, where five looks or more say that it beats "
        "the last by more than noise; or always the last",
    )
    offload_encoders: bool = Field(False, description="keep text encoders on the CPU")

    def check_teacher(self, teacher: Teacher) -> None:
        """Refuse a teacher that these settings do not fit.

        Raises:
            BootdiffError: naming the setting.
        """
        return None

    def cautions(self, teacher: Teacher) -> Sequence[str]:
        """What is allowed and often regretted, a sentence each, to be said before the training; none by default."""
        return ()

    @property
    def passes(self) -> float:
        """What a step costs, in forward passes of the batch; a pass with gradients counts as three."""
        return 6.0

    @property
    def work(self) -> float:
        """What the whole run costs, in forward passes of one sample."""
        return self.passes * self.steps * self.batch_size

    @property
    def warm_from(self) -> int:
        """The step from which the student learns at its full rate."""
        return self.warmup_steps

    @property
    def span(self) -> float:
        """t_max − t_min, as far as they are known."""
        return (1.0 if self.t_max is None else self.t_max) - (self.t_min or 0.0)

    @model_validator(mode="after")
    def _times_rise(self) -> DistillationSettings:
        if self.span <= 0:
            raise ValueError(f"t_min must be below t_max, got t_min = {self.t_min or 0:g} and t_max = {self.t_max:g}")
        return self

    @model_validator(mode="after")
    def _looks_before_it_stops(self) -> DistillationSettings:
        if self.stop_when == "converged" and self.watch_every == 0:
            raise ValueError("stop_when converged needs looks; leave watch_every out, or set it above 0")
        return self

    @model_validator(mode="after")
    def _weights_agree(self) -> DistillationSettings:
        if self.guidance_range is None:
            if self.export_guidance is not None:
                raise ValueError("export_guidance chooses a weight from guidance_range, which is not given")
            return self
        low, high = self.guidance_range
        if self.guidance_scale is not None:
            raise ValueError("guidance_scale and guidance_range exclude each other; give one of them")
        if low >= high:
            raise ValueError(f"guidance_range should be [MIN, MAX] with MIN below MAX, got {self.guidance_range}")
        if self.export_guidance is not None and not low <= self.export_guidance <= high:
            raise ValueError(
                f"export_guidance {self.export_guidance:g} is outside guidance_range {self.guidance_range}"
            )
        return self


def target_limit(settings: DistillationSettings, teacher: Teacher) -> Limit:
    """How the targets' x_0 is clipped or thresholded."""
    dynamic = DynamicThreshold(settings.dynamic_ratio, settings.dynamic_maximum)
    limits: dict[str, Limit] = {"teacher": teacher.limit, "none": NoLimit(), "clip": Clip(), "dynamic": dynamic}
    return limits[settings.target_limit]


def learned_weight(settings: DistillationSettings, teacher: Teacher) -> GuidanceWeight:
    """What the student learns of the guidance weight: nothing, one weight, or a range."""
    if settings.guidance_range is not None:
        return GuidanceWeight.of(settings.guidance_range)
    if settings.guidance_scale is not None:
        return GuidanceWeight.of(settings.guidance_scale)
    own = guidance_of(teacher)  # given in Python
    if own is not None:
        return GuidanceWeight.of(own.weight)
    adapter = adapter_of(teacher)
    # A network that must be told a weight is told its pipeline's usual one.
    return GuidanceWeight.of(None if adapter is None else adapter.embedded_weight)
