"""Every family of pipelines on tiny random ones: how each is made, opened, disturbed, and called in stock diffusers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tiny_pipelines as tiny
from bootdiff.core.randomness import sample_noise
from bootdiff.students import Student
from bootdiff.teachers import adapter_of, load_teacher
from bootdiff.teachers.encoding import PromptEncoder

SEED, COUNT = 5, 2
WORDS = ["a red cat", "the blue dog"]


@dataclass(frozen=True)
class Family:
    """How a tiny pipeline is made, and how the stock pipeline is called for the same images."""

    make: Callable[..., Path]
    call: dict[str, Any]
    fields: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    refuses: bool = True
    t_max: float | None = None  # where alpha would be so small that float32 noise in eps is 1e-5 in x_0


ONCE = {"num_inference_steps": 1, "guidance_scale": 1.0}
PROMPTS = {"prompt": WORDS, **ONCE, "output_type": "pt"}
FLUX = {"prompt": WORDS, "num_inference_steps": 1, "height": 16, "width": 16, "output_type": "pt"}
LABELS = {"class_labels": [1, 3], "output_type": "pt"}
FAMILIES = {
    "classes": Family(tiny.save_class_unet, {**LABELS, "batch_size": 2}, {"prediction_type": "v_prediction"}),
    "classes, noise": Family(tiny.save_class_unet, {**LABELS, "batch_size": 2}, t_max=0.6),
    "dit": Family(tiny.save_dit, {**LABELS, **ONCE}),
    "dit without variance": Family(tiny.save_dit, {**LABELS, **ONCE}, {"learned": False}),
    "sd": Family(tiny.save_sd, PROMPTS),
    "sd v": Family(tiny.save_sd, PROMPTS, {"prediction_type": "v_prediction"}),
    "sd larger": Family(tiny.save_sd, PROMPTS, options={"size": 32}),
    "sdxl": Family(tiny.save_sdxl, PROMPTS),
    "if": Family(tiny.save_if, PROMPTS, t_max=0.8),
    "if stage 2": Family(tiny.save_if_sr, {**PROMPTS, "noise_level": 100}, t_max=0.7),
    "sd3": Family(tiny.save_sd3, PROMPTS, refuses=False),
    "flux": Family(tiny.save_flux, {**FLUX, "guidance_scale": 3.5}, options={"size": 16}, refuses=False),
    "flux schnell": Family(tiny.save_flux, FLUX, {"guidance_embeds": False}, {"size": 16}, refuses=False),
}


def opened(name: str, folder: Path):
    family = FAMILIES[name]
    return family, load_teacher(str(family.make(folder, **family.fields)), **family.options)


def conditions(teacher) -> Any:
    """Two different conditions of a teacher's own kind."""
    adapter = adapter_of(teacher)
    if adapter.takes == "classes":
        made = adapter.blank(2).add(classes=torch.tensor([1, 3]))
    else:
        made = PromptEncoder(adapter)(WORDS)
    if adapter.guidance == "embedded":
        made = made.add(guidance=torch.full((2,), adapter.usual_weight))
    if hasattr(adapter, "upscaled"):
        small = sample_noise(9, 0, COUNT, (3, 8, 8)).clamp(-1, 1)
        noise = sample_noise(SEED, 0, COUNT, adapter.shape, after=adapter.shape)
        made = made.add(**adapter.upscaled(small, noise, 100))
    return made


def grown(name: str, teacher) -> Student:
    t_max = FAMILIES[name].t_max
    return Student.from_teacher(teacher, t_max=None if t_max is None else teacher.nearest_start(t_max))


def disturbed(student: Student, size: float = 0.02) -> Student:
    """Stand in for training: every weight moves, the zero-initialised ones too."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += size * torch.randn_like(parameter)
    return student


def stock_pipeline(folder: Path):
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def stock_images(name: str, pipe, **more) -> torch.Tensor:
    """The family's call with generators of SEED, SEED + 1, …"""
    call = {**FAMILIES[name].call, **more}
    if name == "if stage 2":
        call["image"] = sample_noise(9, 0, COUNT, (3, 8, 8)).clamp(-1, 1)
    images = pipe(**call, generator=[torch.Generator("cpu").manual_seed(SEED + i) for i in range(COUNT)]).images
    return as_tensor(images)


def as_tensor(images: torch.Tensor | np.ndarray) -> torch.Tensor:
    """Images (b, c, h, w): DiT's pipeline of diffusers 0.40 hands out arrays (b, h, w, c) whatever it is asked for."""
    return torch.from_numpy(images).permute(0, 3, 1, 2) if isinstance(images, np.ndarray) else images


def in_stock_range(name: str, images: torch.Tensor) -> torch.Tensor:
    """DeepFloyd's pipelines hand out [−1, 1] as it is, the others [0, 1]."""
    return images if name.startswith("if") else (images.clamp(-1, 1) + 1) / 2
