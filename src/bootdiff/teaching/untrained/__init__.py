"""The pipelines that ``train-teacher`` can make, small ones of stock classes, each in a file of its own."""

from __future__ import annotations

from collections.abc import Callable

from bootdiff.data.data_set import Data
from bootdiff.teaching.settings import TeacherSettings
from bootdiff.teaching.untrained.base import Untrained
from bootdiff.teaching.untrained.deepfloyd import untrained_deepfloyd, untrained_upscaler
from bootdiff.teaching.untrained.stable_diffusion import untrained_stable_diffusion
from bootdiff.teaching.untrained.unet2d import untrained_classes, untrained_unconditional

UNTRAINED: dict[str, Callable[[Data, TeacherSettings], Untrained]] = {
    "unconditional": untrained_unconditional,
    "classes": untrained_classes,
    "stable-diffusion": untrained_stable_diffusion,
    "if": untrained_deepfloyd,
    "if-upscaler": untrained_upscaler,
}

__all__ = ["UNTRAINED", "Data", "Untrained"]
