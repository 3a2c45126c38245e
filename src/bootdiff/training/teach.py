"""Training a teacher on images: a diffusers pipeline of one's own."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bootdiff.data.images import load_images
from bootdiff.data.sources import Images
from bootdiff.errors import BootdiffError
from bootdiff.files import remove, write_whole
from bootdiff.pictures import grid
from bootdiff.randomness import sample_noise
from bootdiff.runs import Run
from bootdiff.solvers import ddim, trailing_times
from bootdiff.teachers import PipelineTeacher
from bootdiff.training.settings import TeacherSettings

#: diffusers' names of the beta schedules
BETA_SCHEDULES = {
    "cosine": "squaredcos_cap_v2",
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "sigmoid": "sigmoid",
}


def train_teacher(data: str, output: Path, settings: TeacherSettings, report_to: str | None = None) -> bool:
    """Train a UNet2DModel on images and save it as a diffusers pipeline at ``output``.

    Returns:
        False if the folder already holds the finished teacher.

    Raises:
        BootdiffError: if the data cannot be read, do not fit the network, or the folder holds something else.
    """
    pixels = prepare_images(load_images(data), settings)
    data_hash = hash_images(pixels)
    run = Run(output)
    config = {"task": "train-teacher", "data": data, "settings": settings.model_dump()}
    run.check(config, data_hash)
    if (output / "model_index.json").exists():
        return False
    from bootdiff.objectives import Denoiser, Denoising, Learner
    from bootdiff.training.loop import Loop, make_accelerator, start_tracker

    accelerator = make_accelerator(settings, output, report_to)
    torch.manual_seed(settings.seed)
    reading = _untrained(pixels, settings)
    if accelerator.is_main_process:
        run.start(config, data_hash)
    start_tracker(accelerator, settings)
    denoiser = Denoiser(reading)
    learner = Learner(
        denoiser, settings.learning_rate, weight_decay=settings.weight_decay, ema_decay=settings.ema_decay
    )
    objective = Denoising(reading, Images(pixels), learner)
    learners = Loop(objective, settings, output, accelerator, _preview(reading, output)).run()
    if accelerator.is_main_process:
        with learners["teacher"].averaged():
            _save(reading.network, settings, output)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return True


def prepare_images(pixels: Tensor, settings: TeacherSettings) -> Tensor:
    """Pad to ``image_size`` with black and check that the U-Net can halve the images often enough.

    Raises:
        BootdiffError: if the images are not square, larger than ``image_size``, or not divisible.
    """
    height, width = pixels.shape[-2:]
    if height != width:
        raise BootdiffError(f"expected square images, got {width}×{height}; crop or pad them.")
    size = settings.image_size or height
    if size < height:
        raise BootdiffError(f"image_size is {size} but the images are {width}×{height}; resize them or raise it.")
    halvings = len(settings.channels) - 1
    if size % 2**halvings:
        raise BootdiffError(
            f"{len(settings.channels)} levels halve the image {halvings} times, and {size} cannot be; set image_size "
            f"to {math.ceil(size / 2**halvings) * 2**halvings} or use fewer channels."
        )
    before = (size - height) // 2
    return torch.nn.functional.pad(pixels, (before, size - height - before) * 2)


def hash_images(pixels: Tensor) -> str:
    """A short hash of the pixels."""
    return hashlib.blake2b(pixels.numpy().tobytes(), digest_size=8).hexdigest()


def _untrained(pixels: Tensor, settings: TeacherSettings) -> PipelineTeacher:
    from diffusers import UNet2DModel

    from bootdiff.teachers.load import from_network

    depth = range(len(settings.channels))
    attention = set(settings.attention_levels)
    network = UNet2DModel(
        sample_size=pixels.shape[-1],
        in_channels=pixels.shape[1],
        out_channels=pixels.shape[1],
        block_out_channels=tuple(settings.channels),
        layers_per_block=settings.layers_per_block,
        down_block_types=tuple("AttnDownBlock2D" if i in attention else "DownBlock2D" for i in depth),
        up_block_types=tuple("AttnUpBlock2D" if i in attention else "UpBlock2D" for i in reversed(depth)),
        norm_num_groups=math.gcd(*settings.channels, 8),
        attention_head_dim=math.gcd(*settings.channels, 32),
    )
    config = {**_scheduler(settings).config, "_class_name": "DDPMScheduler"}
    return from_network(network, config, "new teacher")


def _preview(reading: Any, output: Path) -> Any:
    """Ten DDIM steps from fixed noises, with the averaged weights."""
    from bootdiff.teachers import Limited

    noise = sample_noise(0, 0, 64, reading.shape)

    def preview(step: int, networks: dict[str, Any]) -> None:
        device = next(reading.network.parameters()).device
        images = ddim(Limited(reading), noise.to(device), trailing_times(10, *reading.t_range))
        write_whole(output / "samples" / f"step-{step:08d}.png", grid(images.cpu()).save)

    return preview


def _scheduler(settings: TeacherSettings) -> Any:
    from diffusers import DDPMScheduler

    return DDPMScheduler(
        beta_schedule=BETA_SCHEDULES[settings.schedule],
        prediction_type=settings.prediction,
        variance_type="fixed_small",
        clip_sample=True,
        timestep_spacing="trailing",
    )


def _save(network: Any, settings: TeacherSettings, output: Path) -> None:
    """model_index.json is written last: a folder that has it is whole."""
    from diffusers import DDPMPipeline

    pipeline = DDPMPipeline(network.eval(), _scheduler(settings))
    temporary = output / ".pipeline"

    def write(folder: Path) -> None:
        pipeline.save_pretrained(folder, safe_serialization=True)

    write_whole(temporary, write)
    for name in ("unet", "scheduler", "model_index.json"):
        remove(output / name)
        (temporary / name).rename(output / name)
    temporary.rmdir()
