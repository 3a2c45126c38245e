"""A small DeepFloyd IF: a T5 encoder, a pixel-space U-Net, and a U-Net that enlarges its images."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.core.randomness import Draw, sample_noise
from bootdiff.core.transfer import to_device
from bootdiff.data.data_set import Data
from bootdiff.data.labels import Captions
from bootdiff.data.pictures import to_unit
from bootdiff.data.sources import Description
from bootdiff.methods.denoising import TextEncoder
from bootdiff.teachers.adapters.deepfloyd import DeepFloyd
from bootdiff.teaching.settings import TeacherSettings
from bootdiff.teaching.untrained.base import SHOWN, Captioned, Untrained, groups, scheduler_fields
from bootdiff.teaching.untrained.tokenizers import t5_tokenizer, words_of

#: the number of tokens to which stock pipelines pad prompts
LENGTH = 77
#: the number of groups with which diffusers normalises the text
TEXT_GROUPS = 32
#: the number of channels of an attention head
HEAD = 16
#: the noise level of the small images that are shown, as a share of all levels
SHOWN_LEVEL = 0.25


def untrained_deepfloyd(data: Data, settings: TeacherSettings) -> Untrained:
    """Return an untrained stage I, which makes images from prompts."""
    from diffusers import IFPipeline

    return _untrained(data, settings, IFPipeline)


def untrained_upscaler(data: Data, settings: TeacherSettings) -> Untrained:
    """Return an untrained stage II, which makes large images from small ones.

    The small images are noised to a level that the network is told.
    """
    from diffusers import DDPMScheduler, IFSuperResolutionPipeline

    noising = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    made = _untrained(data, settings, IFSuperResolutionPipeline, image_noising_scheduler=noising)
    large = data.pixels.shape[-1]
    side = settings.low_size or large // 2
    if side >= large or large % side:
        raise BootdiffError(f"low_size should be a whole fraction of the images' {large} pixels, got {side}.")
    small = interpolate(to_unit(data.pixels), size=(side, side), mode="area")
    stage: Any = made.reading().adapter
    levels = noising.config.num_train_timesteps
    noise = sample_noise(0, 0, SHOWN, stage.shape)
    first = small[torch.arange(SHOWN) % len(small)]
    made.shown = made.shown.add(**stage.upscaled(first, noise, int(SHOWN_LEVEL * levels)))
    made.description = Enlarged(made.description, small, stage, levels)
    return made


@dataclass(frozen=True)
class Enlarged:
    """Captions as conditions, with the image itself made small, enlarged, and noised to a random level.

    Args:
        inner: describes the captions.
        small: the small images, (n, c, h, w) in [−1, 1].
        stage: the adapter that enlarges and noises the small images.
        levels: the number of noise levels.
    """

    inner: Description
    small: Tensor
    stage: Any
    levels: int

    def of(self, rows: Tensor, draw: Draw) -> Condition:
        """Return the condition of these images, with the entries ``image`` and ``noise_level`` added."""
        noise, level = draw.normal("augmentation", self.stage.shape), draw.integers("level", self.levels)
        return self.inner.of(rows, draw).add(
            **self.stage.upscaled(to_device(self.small[rows], draw.device), noise, level)
        )


def _untrained(data: Data, settings: TeacherSettings, kind: Any, **parts: Any) -> Untrained:
    from diffusers import DDPMScheduler

    if data.captions is None:
        raise BootdiffError("a teacher of kind if needs images with captions.")
    if settings.text_width % TEXT_GROUPS:
        raise BootdiffError(f"text_width should be a multiple of {TEXT_GROUPS} here, got {settings.text_width}.")
    if min(settings.channels[1:], default=HEAD) < HEAD:
        raise BootdiffError(f"levels below the first attend to the text, so they need {HEAD} channels or more.")
    captions = cleaned(data.captions)
    tokenizer = t5_tokenizer(words_of(captions.texts), LENGTH)
    encoder = _t5(tokenizer, settings)
    words = {"variance_type": "fixed_small", "clip_sample": True, "timestep_spacing": "trailing"}
    pipeline = kind(
        tokenizer=tokenizer,
        text_encoder=encoder,
        unet=_unet(data, settings, enlarges=bool(parts)),
        scheduler=DDPMScheduler(**scheduler_fields(settings), **words),
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
        **parts,
    )
    said = Captioned.of_data(captions, tokenizer, settings.condition_dropout, LENGTH)
    return Untrained(pipeline, said, said.shown(), TextEncoder(encoder, masked=True))


def cleaned(captions: Captions) -> Captions:
    """Return captions as the stock pipeline cleans its prompts; in lower case only, if its modules are missing."""
    from diffusers import IFPipeline

    bare: Any = object.__new__(IFPipeline)  # cleaning asks nothing of a pipeline
    clean = all(find_spec(name) is not None for name in DeepFloyd.cleaners)
    return Captions(tuple(bare._text_preprocessing(list(captions.texts), clean_caption=clean)), captions.rows)


def _t5(tokenizer: Any, settings: TeacherSettings) -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=settings.text_width,
        d_kv=16,
        d_ff=4 * settings.text_width,
        num_layers=settings.text_layers,
        num_heads=max(1, settings.text_width // 16),
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
    )
    return T5EncoderModel(config)


def _unet(data: Data, settings: TeacherSettings, enlarges: bool) -> Any:
    """Return a U-Net built like IF's, which gives a variance beside the image.

    The text enters by a projection, and by simple cross-attention below the first level.

    The variance is not trained; stock pipelines drop it where the scheduler has a fixed one.
    """
    from diffusers import UNet2DConditionModel

    channels, levels = data.pixels.shape[1], len(settings.channels)
    told: dict[str, Any] = {"class_embed_type": "timestep"} if enlarges else {}
    attended = ("SimpleCrossAttnDownBlock2D", "SimpleCrossAttnUpBlock2D")
    return UNet2DConditionModel(
        sample_size=data.pixels.shape[-1],
        in_channels=channels * (2 if enlarges else 1),
        out_channels=2 * channels,
        block_out_channels=tuple(settings.channels),
        layers_per_block=settings.layers_per_block,
        down_block_types=("ResnetDownsampleBlock2D", *(attended[0],) * (levels - 1)),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=(*(attended[1],) * (levels - 1), "ResnetUpsampleBlock2D"),
        cross_attention_dim=settings.text_width,
        cross_attention_norm="group_norm",
        attention_head_dim=HEAD,
        norm_num_groups=groups(settings.channels),
        encoder_hid_dim=settings.text_width,
        encoder_hid_dim_type="text_proj",
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        resnet_time_scale_shift="scale_shift",
        resnet_skip_time_act=True,
        act_fn="gelu",
        time_embedding_act_fn="gelu",
        **told,
    )
