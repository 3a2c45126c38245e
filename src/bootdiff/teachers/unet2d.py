"""diffusers' UNet2DModel as a teacher: unconditional pixel models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from bootdiff.condition import Condition
from bootdiff.errors import BootdiffError
from bootdiff.files import read_json
from bootdiff.schedules import Schedule
from bootdiff.teachers.base import NetworkTeacher
from bootdiff.teachers.scheduler import BetaWords, read_limit, read_scheduler, read_words
from bootdiff.teachers.weights import load_network


class UNet2DTeacher(NetworkTeacher):
    """A pixel-space UNet2DModel. Where it predicts a variance as well, only the image channels are read."""

    #: the scheduler's own config, for its time spacing and for the unfolded student
    scheduler_config: dict[str, Any] | None = None

    def call(self, network: nn.Module, x_t: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """The network's output, (b, c, h, w)."""
        dtype = next(network.parameters()).dtype
        return network(x_t.to(dtype), timestep).sample[:, : self.shape[0]]

    @classmethod
    def from_folder(
        cls, folder: Path, name: str, variant: str | None = None, dtype: torch.dtype = torch.float32
    ) -> UNet2DTeacher:
        """Read ``folder/unet`` and ``folder/scheduler``; in the hub's oldest pipelines both lie in ``folder`` itself.

        Raises:
            BootdiffError: for weights that cannot be trusted or read, a label-conditioned network, or a scheduler
                whose schedule or prediction type cannot be read.
        """
        unet, scheduler = (folder / part if (folder / part).is_dir() else folder for part in ("unet", "scheduler"))
        scheduler_config = read_json(scheduler / "scheduler_config.json")
        config = read_json(unet / "config.json")
        check_supported(config, scheduler_config, unet)
        schedule, prediction = read_scheduler(scheduler_config, scheduler)
        limit = read_limit(scheduler_config, scheduler)
        network = load_network(UNet2DModel, unet, dtype, variant)
        return cls.from_parts(network, schedule, prediction, limit, name, scheduler_config)

    @classmethod
    def from_parts(
        cls, network: Any, schedule: Schedule, prediction: Any, limit: Any, name: str, scheduler_config: dict[str, Any]
    ) -> UNet2DTeacher:
        """A network and what its scheduler says; a learned time table takes integer timesteps only."""
        if network.config.time_embedding_type == "learned":
            schedule = schedule.with_integer_timesteps()
        teacher = cls(network, schedule, prediction, image_shape(network.config), name, limit)
        teacher.scheduler_config = scheduler_config
        return teacher


def image_shape(config: Any) -> tuple[int, int, int]:
    """(channels, height, width) of a UNet2DModel's images."""
    size = config["sample_size"]
    height, width = (size, size) if isinstance(size, int) else size
    return config["in_channels"], height, width


def check_supported(config: dict[str, Any], scheduler: dict[str, Any], where: Path) -> None:
    """Refuse networks that this adapter would run wrongly.

    Raises:
        BootdiffError: naming the field met.
    """
    words = read_words(scheduler, where.parent / "scheduler")
    table = words.num_train_timesteps if isinstance(words, BetaWords) else None
    _check_conditions(config, where)
    _check_size(config, where)
    _check_channels(config, words, where)
    if config.get("center_input_sample") and not isinstance(words, BetaWords):
        raise BootdiffError(
            f"{where} shifts its input (center_input_sample), which cannot be exported together with the scaled input "
            f"of a {scheduler.get('_class_name')}; expected center_input_sample: false."
        )
    kind = config.get("time_embedding_type", "positional")
    if kind == "learned" and config.get("num_train_timesteps") != table:
        raise BootdiffError(
            f"{where} looks time up in a table of {config.get('num_train_timesteps')} timesteps (num_train_timesteps) "
            f"but its scheduler has {table}; both must be the same number."
        )
    if kind == "fourier" and isinstance(words, BetaWords):
        raise BootdiffError(
            f"{where} has time_embedding_type 'fourier', which is told sigma, but its scheduler "
            f"({scheduler.get('_class_name')}) counts timesteps; expected a ScoreSdeVeScheduler."
        )
    if kind not in ("positional", "learned", "fourier"):
        raise BootdiffError(f"{where}: time_embedding_type '{kind}' cannot be read; expected positional or learned.")


def _check_conditions(config: dict[str, Any], where: Path) -> None:
    if config.get("num_class_embeds") is not None or config.get("class_embed_type") is not None:
        raise BootdiffError(
            f"{where} is conditioned on class labels (num_class_embeds = {config.get('num_class_embeds')}); class-"
            "conditional teachers are not supported yet. Supported: unconditional UNet2DModel pipelines."
        )


def _check_size(config: dict[str, Any], where: Path) -> None:
    size = config.get("sample_size")
    if size is None:
        raise BootdiffError(f"{where}/config.json has no sample_size, so the image size is unknown; add it there.")
    sides = [size, size] if isinstance(size, int) else list(size) if isinstance(size, list | tuple) else []
    halvings = len(config.get("down_block_types", "four")) - 1
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise BootdiffError(f"{where}/config.json: sample_size should be a number of pixels, got {size!r}.")
    if any(side % 2**halvings for side in sides):
        raise BootdiffError(
            f"{where} halves its images {halvings} times (down_block_types), and a sample_size of {size} cannot be; "
            f"expected a multiple of {2**halvings}."
        )


def _check_channels(config: dict[str, Any], words: Any, where: Path) -> None:
    given, made = config.get("in_channels", 3), config.get("out_channels", 3)
    learned = getattr(words, "variance_type", None) in ("learned", "learned_range")
    if made == given or (made == 2 * given and learned):
        return
    raise BootdiffError(
        f"{where} takes {given} channels and gives {made} (out_channels); expected the same number, or twice as many "
        "where the scheduler's variance_type is learned or learned_range (image-conditioned networks are not "
        "supported yet)."
    )
