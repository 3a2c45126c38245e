"""Settings of ``train-teacher``: groups, and for every kind of teacher those that it has."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from bootdiff.config.base import Settings, yaml_no
from bootdiff.config.settings import TrainingSettings
from bootdiff.core.errors import BootdiffError


class TeacherTraining(TrainingSettings):
    """How a teacher learns, and of which kind it is."""

    learning_rate: float = Field(default=1e-3, gt=0, le=1, description="AdamW's rate")
    lr_schedule: Literal["constant", "linear", "cosine"] = Field(
        default="cosine", description="how the rate falls to 0"
    )
    ema_decay: float = Field(default=0.999, ge=0, lt=1, description="of the averaged weights that are kept; 0 = none")
    kind: Literal["unconditional", "classes", "stable-diffusion", "if", "if-upscaler"] = Field(
        default="unconditional", description="of pipeline: what it is conditioned on, and the stock class"
    )


class Dropout(Settings):
    """For teachers on labels or captions."""

    condition_dropout: float = Field(
        default=0.1, ge=0, le=1, description="how often labels or captions are left out, for guidance"
    )


class Network(Settings):
    """The denoiser, and what it predicts behind which noise."""

    prediction: Literal["sample", "epsilon", "v_prediction"] = Field(
        default="sample", description="what the network outputs"
    )
    schedule: Literal["cosine", "linear", "scaled_linear", "sigmoid"] = Field(
        default="cosine", description="of the betas"
    )
    channels: list[PositiveInt] = Field(
        default=[32, 64], min_length=1, description="of the U-Net's levels, from fine to coarse"
    )
    layers_per_block: int = Field(default=1, ge=1, description="residual blocks a level")


class Attention(Network):
    """Which levels attend; only a plain U-Net leaves that open."""

    attention_levels: list[NonNegativeInt] = Field(
        default=[], description="levels with attention, counted from 0; the middle always has it"
    )

    @model_validator(mode="after")
    def _levels(self) -> Self:
        if any(level >= len(self.channels) for level in self.attention_levels):
            raise BootdiffError(f"attention_levels must be below {len(self.channels)}, got {self.attention_levels}.")
        return self


class Sizes(Settings):
    """The images' sides."""

    resize: int | None = Field(
        default=None, ge=4, le=8192, description="resize the images to this side; none = as they are"
    )
    image_size: int | None = Field(
        default=None, ge=4, le=8192, description="pad the images to this size; none = the data's own"
    )


class Enlarging(Settings):
    """For super-resolution."""

    low_size: int | None = Field(
        default=None, ge=1, description="for if-upscaler: side of the small images; none = half"
    )


class TextEncoding(Settings):
    """For teachers on captions."""

    text_width: int = Field(default=64, ge=16, multiple_of=16, description="of the text encoder's embeddings")
    text_layers: int = Field(default=2, ge=1, description="of the text encoder")


class Latents(Settings):
    """For teachers on latents: their autoencoder."""

    latent_channels: int = Field(default=4, ge=1, description="for stable-diffusion: of the autoencoder's latents")
    autoencoder_channels: list[PositiveInt] = Field(default=[32, 64], min_length=1, description="of its levels")
    autoencoder_steps: int = Field(default=2000, ge=1, description="its own training, before the denoiser's")
    autoencoder_rate: float = Field(default=1e-3, gt=0, le=1, description="its learning rate")
    kl_weight: float = Field(default=1e-4, ge=0, description="of the latents' divergence from a standard normal")


class Beside(Settings):
    """The student that is trained with its teacher."""

    with_student: Literal["no", "beside", "shared"] = Field(
        default="no", description="train a one-step student too: a network beside the teacher's, or the same one"
    )
    student: dict[str, Any] = Field(
        default_factory=dict, description="the student's settings, as for distill: student.t_max, student.delta, …"
    )

    _no = field_validator("with_student", mode="before")(yaml_no)


class UnconditionalSettings(Beside, Sizes, Attention, Network, TeacherTraining):
    """Of kind unconditional."""


class ClassSettings(Beside, Sizes, Attention, Network, Dropout, TeacherTraining):
    """Of kind classes."""


class StableDiffusionSettings(Beside, Latents, TextEncoding, Sizes, Network, Dropout, TeacherTraining):
    """Of kind stable-diffusion."""


class DeepFloydSettings(Beside, TextEncoding, Sizes, Network, Dropout, TeacherTraining):
    """Of kind if."""


class UpscalerSettings(Beside, TextEncoding, Enlarging, Sizes, Network, Dropout, TeacherTraining):
    """Of kind if-upscaler."""


#: what the kinds of teachers may be told
KINDS: dict[str, type[TeacherTraining]] = {
    "unconditional": UnconditionalSettings,
    "classes": ClassSettings,
    "stable-diffusion": StableDiffusionSettings,
    "if": DeepFloydSettings,
    "if-upscaler": UpscalerSettings,
}


class TeacherSettings(Beside, Latents, TextEncoding, Enlarging, Sizes, Attention, Network, Dropout, TeacherTraining):
    """Settings of ``train-teacher``, whatever its kind; what another kind has is accepted and has no effect."""

    @property
    def of_its_kind(self) -> dict[str, Any]:
        """Those that this kind of teacher has."""
        return {key: value for key, value in self.model_dump().items() if key not in FORMER[self.kind]}


#: by kind, what runs of earlier versions name in their config.yaml though the kind does not have it
FORMER = {kind: frozenset(TeacherSettings.model_fields) - frozenset(own.model_fields) for kind, own in KINDS.items()}
