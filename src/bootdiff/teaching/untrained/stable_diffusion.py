"""A small Stable Diffusion, made of AutoencoderKL, CLIP's text encoder and tokenizer, and UNet2DConditionModel."""

from __future__ import annotations

import math
from typing import Any

from bootdiff.core.errors import BootdiffError
from bootdiff.data.data_set import Data
from bootdiff.methods.denoising import TextEncoder
from bootdiff.teaching.settings import TeacherSettings
from bootdiff.teaching.untrained.base import Captioned, Untrained, groups, scheduler_fields
from bootdiff.teaching.untrained.tokenizers import clip_tokenizer, words_of

#: the number of tokens to which stock pipelines pad prompts
LENGTH = 77


def untrained_stable_diffusion(data: Data, settings: TeacherSettings) -> Untrained:
    """Return an untrained pipeline with all its parts.

    The autoencoder is to be trained first, on the images alone.
    """
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    if data.captions is None:
        raise BootdiffError("a teacher of kind stable-diffusion needs images with captions.")
    if settings.schedule == "sigmoid":
        raise BootdiffError(
            "stable-diffusion's scheduler knows no sigmoid schedule; use cosine, linear, scaled_linear."
        )
    tokenizer = clip_tokenizer(words_of(data.captions.texts), LENGTH)
    encoder = _clip(tokenizer, settings)
    autoencoder = _autoencoder(data, settings)
    pipeline = StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=_unet(data.pixels.shape[-1] // 2 ** (len(settings.autoencoder_channels) - 1), settings),
        scheduler=DDIMScheduler(**scheduler_fields(settings), clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    said = Captioned.of_data(data.captions, tokenizer, settings.condition_dropout, LENGTH)
    return Untrained(pipeline, said, said.shown(), TextEncoder(encoder))


def _clip(tokenizer: Any, settings: TeacherSettings) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.text_width,
        intermediate_size=4 * settings.text_width,
        projection_dim=settings.text_width,
        num_hidden_layers=settings.text_layers,
        num_attention_heads=max(1, settings.text_width // 16),
        max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return CLIPTextModel(config)


def _autoencoder(data: Data, settings: TeacherSettings) -> Any:
    from diffusers import AutoencoderKL

    channels = settings.autoencoder_channels
    return AutoencoderKL(
        in_channels=data.pixels.shape[1],
        out_channels=data.pixels.shape[1],
        sample_size=data.pixels.shape[-1],
        latent_channels=settings.latent_channels,
        block_out_channels=tuple(channels),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        norm_num_groups=groups(channels),
    )


def _unet(side: int, settings: TeacherSettings) -> Any:
    from diffusers import UNet2DConditionModel

    levels = len(settings.channels)
    return UNet2DConditionModel(
        sample_size=side,
        in_channels=settings.latent_channels,
        out_channels=settings.latent_channels,
        block_out_channels=tuple(settings.channels),
        layers_per_block=settings.layers_per_block,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        cross_attention_dim=settings.text_width,
        attention_head_dim=max(1, math.gcd(*settings.channels) // 16),
        norm_num_groups=groups(settings.channels),
    )
