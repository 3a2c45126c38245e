"""The settings of ``train-teacher``, in groups, and which of them each kind of teacher has."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from bootdiff.config.base import Settings, yaml_no
from bootdiff.config.settings import TrainingSettings
from bootdiff.core.errors import BootdiffError


class TeacherTraining(TrainingSettings):
    """The settings that say how a teacher learns, and of which kind it is."""

    learning_rate: float = Field(default=1e-3, gt=0, le=1, description="AdamW's rate")
    lr_schedule: Literal["constant", "linear", "cosine"] = Field(
        default="cosine", description="how the rate falls to 0"
    )
    ema_decay: float = Field(default=0.999, ge=0, lt=1, description="of the averaged weights that are kept; 0 = none")
    kind: Literal["unconditional", "classes", "stable-diffusion", "if", "if-upscaler"] = Field(
        default="unconditional", description="of pipeline: what it is conditioned on, and the stock class"
    )


class Dropout(Settings):
    """The settings of teachers that are conditioned on labels or captions."""

    condition_dropout: float = Field(
        default=0.1, ge=0, le=1, description="how often labels or captions are left out, for guidance"
    )


class Network(Settings):
    """The settings of the denoiser: its size, what it predicts, and behind which noise."""

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
    """The setting that says which levels of the network have attention; only a plain U-Net leaves that open."""

    attention_levels: list[NonNegativeInt] = Field(
        default=[], description="levels with attention, counted from 0; the middle always has it"
    )

    @model_validator(mode="after")
    def _levels(self) -> Self:
        if any(level >= len(self.channels) for level in self.attention_levels):
            raise BootdiffError(f"attention_levels must be below {len(self.channels)}, got {self.attention_levels}.")
        return self


class Sizes(Settings):
    """The settings that say how large the images are."""

    resize: int | None = Field(
        default=None, ge=4, le=8192, description="resize the images to this side; none = as they are"
    )
    image_size: int | None = Field(
        default=None, ge=4, le=8192, description="pad the images to this size; none = the data's own"
    )


class Enlarging(Settings):
    """The settings of super-resolution teachers."""

    low_size: int | None = Field(
        default=None, ge=1, description="for if-upscaler: side of the small images; none = half"
    )


class TextEncoding(Settings):
    """The settings of teachers that are conditioned on captions."""

    text_width: int = Field(default=64, ge=16, multiple_of=16, description="of the text encoder's embeddings")
    text_layers: int = Field(default=2, ge=1, description="of the text encoder")


class Latents(Settings):
    """The settings of the autoencoder that a teacher on latents has."""

    latent_channels: int = Field(default=4, ge=1, description="for stable-diffusion: of the autoencoder's latents")
    autoencoder_channels: list[PositiveInt] = Field(default=[32, 64], min_length=1, description="of its levels")
    autoencoder_steps: int = Field(default=2000, ge=1, description="its own training, before the denoiser's")
    autoencoder_rate: float = Field(default=1e-3, gt=0, le=1, description="its learning rate")
    kl_weight: float = Field(default=1e-4, ge=0, description="of the latents' divergence from a standard normal")


class Beside(Settings):
    """The settings of a student that is trained together with its teacher."""

    with_student: Literal["no", "beside", "shared"] = Field(
        default="no", description="train a one-step student too: a network beside the teacher's, or the same one"
    )
    student: dict[str, Any] = Field(
        default_factory=dict, description="the student's settings, as for distill: student.t_max, student.delta, …"
    )

    _no_student = field_validator("with_student", mode="before")(yaml_no)


class UnconditionalSettings(Beside, Sizes, Attention, Network, TeacherTraining):
    """The settings of a teacher of the kind ``unconditional``."""


class ClassSettings(Beside, Sizes, Attention, Network, Dropout, TeacherTraining):
    """The settings of a teacher of the kind ``classes``."""


class StableDiffusionSettings(Beside, Latents, TextEncoding, Sizes, Network, Dropout, TeacherTraining):
    """The settings of a teacher of the kind ``stable-diffusion``."""


class DeepFloydSettings(Beside, TextEncoding, Sizes, Network, Dropout, TeacherTraining):
    """The settings of a teacher of the kind ``if``."""


class UpscalerSettings(Beside, TextEncoding, Enlarging, Sizes, Network, Dropout, TeacherTraining):
    """The settings of a teacher of the kind ``if-upscaler``."""


#: the settings that each kind of teacher has
KINDS: dict[str, type[TeacherTraining]] = {
    "unconditional": UnconditionalSettings,
    "classes": ClassSettings,
    "stable-diffusion": StableDiffusionSettings,
    "if": DeepFloydSettings,
    "if-upscaler": UpscalerSettings,
}


class TeacherSettings(Beside, Latents, TextEncoding, Enlarging, Sizes, Attention, Network, Dropout, TeacherTraining):
    """The settings of ``train-teacher``, whatever the kind.

    A setting that only another kind has is accepted, and has no effect.
    """

    @property
    def of_its_kind(self) -> dict[str, Any]:
        """Return the settings that this kind of teacher has, by name."""
        return {key: value for key, value in self.model_dump().items() if key not in FORMER[self.kind]}


#: for each kind, settings that it does not have, but that runs of earlier versions name in their config.yaml
FORMER = {kind: frozenset(TeacherSettings.model_fields) - frozenset(own.model_fields) for kind, own in KINDS.items()}
