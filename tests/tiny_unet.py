"""A tiny random U-Net, and a teacher's folder with it. No settings of a test run: the GPU benchmarks build it, too."""

from __future__ import annotations

import json
from pathlib import Path

import torch


def tiny_unet(channels: int = 1, seed: int = 0, **fields):
    """A random UNet2DModel of a few thousand parameters for 8×8 images."""
    from diffusers import UNet2DModel

    torch.manual_seed(seed)
    config = {
        "sample_size": 8,
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
        "norm_num_groups": 4,
        "attention_head_dim": 8,
    }
    return UNet2DModel(**{**config, **fields}).eval()


def save_teacher(
    folder: Path, channels: int = 1, seed: int = 0, unet: dict | None = None, scheduler: dict | None = None, **fields
) -> Path:
    """Save a random DDPM pipeline as a teacher's folder.

    ``fields`` are the scheduler's; ``scheduler`` is written over its config as it is, whatever it says.
    """
    from diffusers import DDPMPipeline, DDPMScheduler

    usual = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample", "clip_sample": True}
    pipeline = DDPMPipeline(tiny_unet(channels, seed, **(unet or {})), DDPMScheduler(**{**usual, **fields}))
    pipeline.save_pretrained(folder)
    if scheduler is not None:
        path = folder / "scheduler" / "scheduler_config.json"
        kept = {} if "_class_name" in scheduler else json.loads(path.read_text())
        path.write_text(json.dumps({**kept, **scheduler}))
        name_scheduler(folder, scheduler.get("_class_name", "DDPMScheduler"))
    return folder


def name_scheduler(folder: Path, kind: object) -> None:
    """The scheduler's class in the pipeline's index, which is the one that stock diffusers builds."""
    path = folder / "model_index.json"
    if isinstance(kind, str):
        path.write_text(json.dumps({**json.loads(path.read_text()), "scheduler": ["diffusers", kind]}))
