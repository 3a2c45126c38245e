"""Samplers under one contract: noises in, images in [−1, 1] out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from bootdiff.errors import BootdiffError
from bootdiff.pipelines.student_files import FILE, load_student, read_facts, student_facts
from bootdiff.randomness import sample_noise
from bootdiff.student import Student


def best_device() -> torch.device:
    """The accelerator, where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Sampler(Protocol):
    """Makes images from starting noises, on the noises' own device."""

    #: of one sample, without the batch
    shape: tuple[int, ...]

    def __call__(self, eps: Tensor) -> Tensor: ...


class StockStudent:
    """An exported student, called through stock diffusers' own network and scheduler."""

    def __init__(self, folder: Path) -> None:
        from diffusers import DiffusionPipeline
        from diffusers.utils import logging

        logging.disable_progress_bar()
        try:
            self.pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        except Exception as error:  # diffusers raises many kinds; to the user each means a damaged folder
            raise BootdiffError(
                f"{folder} cannot be opened as a pipeline ({str(error).splitlines()[0][:160]})."
            ) from error
        timesteps = self.pipeline.scheduler.config.get("num_train_timesteps")
        if not hasattr(self.pipeline, "unet") or timesteps != 1:
            raise BootdiffError(
                f"{folder} is a {type(self.pipeline).__name__} but no one-step student (its scheduler has {timesteps} "
                "timesteps); expected a run, or a student that bootdiff exported."
            )
        config = self.pipeline.unet.config
        size = config.sample_size
        self.shape = (config.in_channels, *((size, size) if isinstance(size, int) else size))
        self.facts = read_facts(folder / FILE) if (folder / FILE).exists() else {}

    @torch.no_grad()
    def __call__(self, eps: Tensor) -> Tensor:
        """One network call and one scheduler step."""
        self.pipeline.unet.to(eps.device)
        scheduler = self.pipeline.scheduler
        scheduler.set_timesteps(1)
        t = scheduler.timesteps[0]
        return scheduler.step(self.pipeline.unet(eps, t).sample, t, eps).prev_sample


def open_student(name: str) -> tuple[Sampler, dict[str, Any]]:
    """A one-step sampler from a run, a ``student-path`` or an exported student, and what its ``bootdiff.json`` says.

    Raises:
        BootdiffError: if the folder is none of them, or its run is not finished.
    """
    folder = Path(name)
    if not folder.is_dir():
        raise BootdiffError(f"no folder at '{name}'; expected a run or a student.")
    if (folder / "model_index.json").exists() and not (folder / "student").exists():
        stock = StockStudent(folder)
        return stock, stock.facts
    student = load_student(path_folder(folder))
    return PathSampler(student), student_facts(student)


def path_folder(folder: Path) -> Path:
    """The unfolded student of a run, or the folder itself if it is one.

    Raises:
        BootdiffError: if there is none.
    """
    for candidate in (folder, folder / "student-path"):
        if (candidate / FILE).exists() and not (candidate / "model_index.json").exists():
            return candidate
    if (folder / "config.yaml").exists():
        raise BootdiffError(f"the run in {folder} has no student yet; repeat its command to finish it.")
    raise BootdiffError(f"{folder} holds neither a run, an unfolded student (student-path) nor an exported student.")


class PathSampler:
    """An unfolded student, asked for t_min."""

    def __init__(self, student: Student) -> None:
        self.student, self.shape = student, student.shape

    def __call__(self, eps: Tensor) -> Tensor:
        """Images in one call."""
        return self.student.to(eps.device).sample(eps)


def noise_batches(seed: int, num: int, shape: Sequence[int], batch_size: int) -> Iterator[Tensor]:
    """The noises of the samples 0 … num − 1 of ``seed``, in batches; sample i does not depend on the batch size."""
    for start in range(0, num, batch_size):
        yield sample_noise(seed, start, min(num, start + batch_size), shape).to(best_device())
