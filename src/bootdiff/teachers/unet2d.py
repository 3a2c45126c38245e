"""diffusers' UNet2DModel as a teacher: unconditional pixel models."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import UNet2DModel
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from bootdiff.condition import Condition
from bootdiff.errors import BootdiffError
from bootdiff.files import read_json
from bootdiff.schedules import Schedule
from bootdiff.teachers.base import NetworkTeacher
from bootdiff.teachers.limits import limit_from
from bootdiff.teachers.scheduler import BetaConfig, SchedulerConfig, checked, read_config
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
        words = read_config(scheduler_config, scheduler)
        check_supported(read_json(unet / "config.json"), words, unet)
        schedule, prediction = words.read(scheduler)
        limit = limit_from(words.model_dump())
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


class UNet2DConfig(BaseModel):
    """What of a UNet2DModel's config decides whether, and how, it can be read; the defaults are the class's own."""

    model_config = ConfigDict(extra="ignore", strict=True)

    sample_size: int | list[int]
    in_channels: int = Field(3, ge=1)
    out_channels: int = Field(3, ge=1)
    down_block_types: list[str] = Field(["a", "b", "c", "d"], min_length=1)
    time_embedding_type: Literal["positional", "learned"] = "positional"
    num_train_timesteps: int | None = None
    center_input_sample: bool = False
    class_embed_type: str | None = None
    num_class_embeds: int | None = None

    @property
    def side(self) -> int:
        """Of its images, 0 if they are not square."""
        sides = [self.sample_size] * 2 if isinstance(self.sample_size, int) else self.sample_size
        return sides[0] if len(sides) == 2 and sides[0] == sides[1] else 0


def check_supported(fields: dict[str, Any], scheduler: SchedulerConfig, where: Path) -> None:
    """Refuse networks that this adapter would run wrongly.

    Raises:
        BootdiffError: naming the field met.
    """
    if fields.get("time_embedding_type") == "fourier":
        raise BootdiffError(
            f"{where} has time_embedding_type 'fourier': score models (ScoreSdeVe), whose images lie in [0, 1], are "
            "not supported; expected positional or learned."
        )
    if fields.get("sample_size") is None:
        raise BootdiffError(f"{where}/config.json has no sample_size, so the image size is unknown; add it there.")
    config = checked(UNet2DConfig, {k: v for k, v in fields.items() if v is not None}, where / "config.json")
    if config.num_class_embeds is not None or config.class_embed_type is not None:
        raise BootdiffError(
            f"{where} is conditioned on class labels (num_class_embeds = {config.num_class_embeds}); class-conditional "
            "teachers are not supported yet. Supported: unconditional UNet2DModel pipelines."
        )
    _check_size(config, where)
    _check_channels(config, scheduler, where)
    _check_time(config, scheduler, where)


def _check_size(config: UNet2DConfig, where: Path) -> None:
    halvings = len(config.down_block_types) - 1
    if config.side <= 0:
        raise BootdiffError(f"{where}: sample_size should be the side of a square, got {config.sample_size}.")
    if config.side % 2**halvings:
        raise BootdiffError(
            f"{where} halves its images {halvings} times (down_block_types), and a sample_size of {config.side} cannot "
            f"be; expected a multiple of {2**halvings}."
        )


def _check_channels(config: UNet2DConfig, scheduler: SchedulerConfig, where: Path) -> None:
    given, made = config.in_channels, config.out_channels
    learned = getattr(scheduler, "variance_type", None) in ("learned", "learned_range")
    if made != given and not (made == 2 * given and learned):
        raise BootdiffError(
            f"{where} takes {given} channels and gives {made} (out_channels); expected the same number, or twice as "
            "many where the scheduler's variance_type is learned or learned_range (image-conditioned networks are not "
            "supported yet)."
        )


def _check_time(config: UNet2DConfig, scheduler: SchedulerConfig, where: Path) -> None:
    if config.center_input_sample and not isinstance(scheduler, BetaConfig):
        raise BootdiffError(
            f"{where} shifts its input (center_input_sample), which cannot be exported together with EDM's scaled "
            "input; expected center_input_sample: false."
        )
    table = scheduler.num_train_timesteps if isinstance(scheduler, BetaConfig) else None
    if config.time_embedding_type == "learned" and config.num_train_timesteps != table:
        raise BootdiffError(
            f"{where} looks time up in a table of {config.num_train_timesteps} timesteps (num_train_timesteps) but its "
            f"scheduler has {table}; both must be the same number."
        )
