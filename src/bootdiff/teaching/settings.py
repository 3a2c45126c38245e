"""Settings of ``train-teacher``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from bootdiff.config.settings import TrainingSettings


class TeacherSettings(TrainingSettings):
    """Settings of ``train-teacher``."""

    learning_rate: float = Field(1e-3, gt=0, le=1, description="AdamW's rate")
    lr_schedule: Literal["constant", "linear", "cosine"] = Field("cosine", description="how the rate falls to 0")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="of the averaged weights that are kept; 0 = none")
    kind: Literal["unconditional", "classes", "stable-diffusion", "if", "if-upscaler"] = Field(
        "unconditional", description="of pipeline: what it is conditioned on, and the stock class"
    )
    condition_dropout: float = Field(
        0.1, ge=0, le=1, description="how often labels or captions are left out, for guidance"
    )
    prediction: Literal["sample", "epsilon", "v_prediction"] = Field("sample", description="what the network outputs")
    schedule: Literal["cosine", "linear", "scaled_linear", "sigmoid"] = Field("cosine", description="of the betas")
    channels: list[PositiveInt] = Field(
        [32, 64], min_length=1, description="of the U-Net's levels, from fine to coarse"
    )
    layers_per_block: int = Field(1, ge=1, description="residual blocks a level")
    attention_levels: list[NonNegativeInt] = Field(
        [], description="levels with attention, counted from 0; the middle always has it"
    )
    resize: int | None = Field(None, ge=4, le=8192, description="resize the images to this side; none = as they are")
    image_size: int | None = Field(
        None, ge=4, le=8192, description="pad the images to this size; none = the data's own"
    )
    low_size: int | None = Field(None, ge=1, description="for if-upscaler: side of the small images; none = half")
    text_width: int = Field(64, ge=16, multiple_of=16, description="of the text encoder's embeddings")
    text_layers: int = Field(2, ge=1, description="of the text encoder")
    latent_channels: int = Field(4, ge=1, description="for stable-diffusion: of the autoencoder's latents")
    autoencoder_channels: list[PositiveInt] = Field([32, 64], min_length=1, description="of its levels")
    autoencoder_steps: int = Field(2000, ge=1, description="its own training, before the denoiser's")
    autoencoder_rate: float = Field(1e-3, gt=0, le=1, description="its learning rate")
    with_student: Literal["no", "beside", "shared"] = Field(
        "no", description="train a one-step student too: a network beside the teacher's, or the same one"
    )
    student: dict[str, Any] = Field(
        default_factory=dict, description="the student's settings, as for distill: student.t_max, student.delta, …"
    )
    kl_weight: float = Field(1e-4, ge=0, description="of the latents' divergence from a standard normal")

    @model_validator(mode="after")
    def _levels(self) -> TeacherSettings:
        if any(level >= len(self.channels) for level in self.attention_levels):
            raise ValueError(f"attention_levels must be below {len(self.channels)}, got {self.attention_levels}")
        return self
