"""The grids of samples that a distillation draws during training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.core.randomness import sample_noise
from bootdiff.data.conditions import Conditions
from bootdiff.data.pictures import grid, is_picture, on_scale, own_scale
from bootdiff.samplers.several import looked_at
from bootdiff.storage.files import write_whole
from bootdiff.teachers import Teacher, adapter_of

if TYPE_CHECKING:
    from bootdiff.students import Student
    from bootdiff.training.loop import Preview

PREVIEWS = 64
#: the number of samples drawn of latents, which are decoded one at a time because a decoder needs much memory
LATENT_PREVIEWS = 16


def preview_of(teacher: Teacher, conditions: Conditions, folder: Path) -> Preview | None:
    """Return a function that draws the student's samples, always from the same noises.

    It is None if the samples are no pictures.
    """
    adapter = adapter_of(teacher)
    latent = adapter is not None and adapter.latent
    if not is_picture(teacher.shape) and not latent:
        return None
    count = LATENT_PREVIEWS if latent else PREVIEWS
    noise, listed = sample_noise(0, 0, count, teacher.shape), conditions.listed(0, 0, count).to("cpu")

    def preview(step: int, networks: dict[str, Any]) -> None:
        student: Student = networks["student"]
        images = _decoded(student, noise, listed) if latent else _sampled(student, noise, listed).cpu()
        if adapter is not None:
            adapter.release_decoder()
        else:
            images = on_scale(images, own_scale([images]))
        write_whole(folder / "samples" / f"step-{step:08d}.png", grid(images).save)

    return preview


def _sampled(student: Student, noise: Tensor, listed: Condition) -> Tensor:
    """Return the student's samples of these noises, (b, *shape), on the student's device."""
    device = next(student.parameters()).device
    samples: Tensor = looked_at(student).sample(noise.to(device), listed.to(device))
    return samples


def _decoded(student: Student, noise: Tensor, listed: Condition) -> Tensor:
    """Return the student's images of these noises, (b, c, h, w), on the CPU; they are made one at a time."""
    latents = (_sampled(student, eps, listed.index(slice(i, i + 1))) for i, eps in enumerate(noise.split(1)))
    return torch.cat([student.decode(latent).cpu() for latent in latents])
