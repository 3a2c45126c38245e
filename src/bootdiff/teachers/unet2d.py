"""diffusers' UNet2DModel as a teacher: unconditional pixel models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import UNet2DModel
from torch import Tensor, nn

from bootdiff.condition import Condition
from bootdiff.errors import BootdiffError
from bootdiff.files import read_json
from bootdiff.teachers.base import NetworkTeacher
from bootdiff.teachers.limits import limit_from_scheduler
from bootdiff.teachers.scheduler import read_scheduler
from bootdiff.teachers.weights import load_network


class UNet2DTeacher(NetworkTeacher):
    """A pixel-space UNet2DModel."""

    #: the scheduler's own config, for its time spacing and for the unfolded student
    scheduler_config: dict[str, Any] | None = None

    def call(self, network: nn.Module, x_t: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """The network's output, (b, c, h, w)."""
        return network(x_t, timestep).sample

    @classmethod
    def from_folder(cls, folder: Path, name: str) -> UNet2DTeacher:
        """Read ``folder/unet`` and ``folder/scheduler``.

        Raises:
            BootdiffError: for weights that cannot be trusted or read, a label-conditioned network, or a scheduler
                whose schedule or prediction type cannot be read.
        """
        config = read_json(folder / "unet" / "config.json")
        check_supported(config, folder / "unet")
        scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
        schedule, prediction = read_scheduler(scheduler, folder / "scheduler")
        network = load_network(UNet2DModel, folder / "unet")
        teacher = cls(network, schedule, prediction, image_shape(config), name, limit_from_scheduler(scheduler))
        teacher.scheduler_config = scheduler
        return teacher


def image_shape(config: dict[str, Any]) -> tuple[int, int, int]:
    """(channels, height, width) of a UNet2DModel's images."""
    size = config["sample_size"]
    height, width = (size, size) if isinstance(size, int) else size
    return config["out_channels"], height, width


def check_supported(config: dict[str, Any], where: Path) -> None:
    """Refuse networks that this adapter would run wrongly.

    Raises:
        BootdiffError: naming the field met.
    """
    if config.get("num_class_embeds") is not None or config.get("class_embed_type") is not None:
        raise BootdiffError(
            f"{where} is conditioned on class labels (num_class_embeds = {config.get('num_class_embeds')}); class-"
            "conditional teachers are not supported yet. Supported: unconditional UNet2DModel pipelines."
        )
    if config.get("sample_size") is None:
        raise BootdiffError(f"{where}/config.json has no sample_size, so the image size is unknown; add it there.")
    if config["in_channels"] != config["out_channels"]:
        raise BootdiffError(
            f"{where} takes {config['in_channels']} channels and gives {config['out_channels']}; expected the same "
            "number (learned variance and image-conditioned networks are not supported yet)."
        )
    if config.get("time_embedding_type", "positional") != "positional":
        raise BootdiffError(
            f"{where} embeds time as '{config['time_embedding_type']}'; only 'positional' is supported yet."
        )
