"""A pixel-space UNet2DModel in a DDPMPipeline, unconditional or conditioned on class labels."""

from __future__ import annotations

import math
from typing import Any

import torch

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.data.data_set import Data
from bootdiff.teaching.settings import TeacherSettings
from bootdiff.teaching.untrained.base import SHOWN, Labelled, Untrained, groups, scheduler_fields


def untrained_unconditional(data: Data, settings: TeacherSettings) -> Untrained:
    """Return an untrained pipeline that is conditioned on nothing."""
    return Untrained(_pipeline(data, settings))


def untrained_classes(data: Data, settings: TeacherSettings) -> Untrained:
    """Return an untrained pipeline that is conditioned on class labels.

    Its class table has a row for every label, and a last one for "no class", which guidance needs.
    """
    if data.labels is None:
        raise BootdiffError("a teacher of kind classes needs labelled images.")
    count = int(data.labels.max()) + 1
    pipeline = _pipeline(data, settings, num_class_embeds=count + 1)
    shown = Condition({"classes": torch.arange(SHOWN) % count})
    described = Labelled(data.labels, count, settings.condition_dropout)
    # Without dropout its row of the table has learned nothing.
    return Untrained(pipeline, described, shown, null_class=count if settings.condition_dropout else None)


def _pipeline(data: Data, settings: TeacherSettings, **fields: Any) -> Any:
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    depth, attention = range(len(settings.channels)), set(settings.attention_levels)
    network = UNet2DModel(
        sample_size=data.pixels.shape[-1],
        in_channels=data.pixels.shape[1],
        out_channels=data.pixels.shape[1],
        block_out_channels=tuple(settings.channels),
        layers_per_block=settings.layers_per_block,
        down_block_types=tuple("AttnDownBlock2D" if i in attention else "DownBlock2D" for i in depth),
        up_block_types=tuple("AttnUpBlock2D" if i in attention else "UpBlock2D" for i in reversed(depth)),
        norm_num_groups=groups(settings.channels),
        attention_head_dim=math.gcd(*settings.channels, 32),
        **fields,
    )
    words = {"variance_type": "fixed_small", "clip_sample": True, "timestep_spacing": "trailing"}
    return DDPMPipeline(network, DDPMScheduler(**scheduler_fields(settings), **words))
