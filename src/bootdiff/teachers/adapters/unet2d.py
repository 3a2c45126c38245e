"""The adapter of UNet2DModel in pixel space, unconditional or on class labels (DDPM, DDIM, PNDM, … pipelines)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.schedules import Schedule
from bootdiff.teachers.adapters.base import LONGEST_SIDE, Adapter, Clock, dtype_of, square
from bootdiff.teachers.loading.components import Components
from bootdiff.teachers.loading.scheduler import BetaConfig, SchedulerConfig, checked


class UNet2DConfig(BaseModel):
    """The fields of a UNet2DModel's config that decide whether, and how, it can be read.

    The defaults are those of its class.
    """

    model_config = ConfigDict(extra="ignore", strict=True)

    sample_size: Annotated[int, Field(le=LONGEST_SIDE)] | list[Annotated[int, Field(le=LONGEST_SIDE)]]
    in_channels: int = Field(3, ge=1)
    out_channels: int = Field(3, ge=1)
    down_block_types: list[str] = Field(["a", "b", "c", "d"], min_length=1)
    time_embedding_type: Literal["positional", "learned"] = "positional"
    num_train_timesteps: int | None = None
    center_input_sample: bool = False
    class_embed_type: str | None = None
    num_class_embeds: int | None = Field(None, ge=1)

    @property
    def side(self) -> int:
        """The side of its images in pixels; 0 if they are not square."""
        sides = [self.sample_size] * 2 if isinstance(self.sample_size, int) else self.sample_size
        return sides[0] if len(sides) == 2 and sides[0] == sides[1] else 0


class UNet2D(Adapter):
    """The adapter of a pixel-space UNet2DModel.

    Where the network predicts a variance as well, only the image's channels are read.
    """

    pipelines = ("DDPMPipeline", "DDIMPipeline", "PNDMPipeline", "KarrasVePipeline", "ConsistencyModelPipeline")
    alone = True

    def __init__(self, parts: Components) -> None:
        super().__init__(parts)
        where = parts.where("unet")
        coder = next((part for part in ("vae", "vqvae", "movq") if parts.kind(part) is not None), None)
        if coder is not None:
            raise BootdiffError(
                f"{where} denoises latents (beside it is a {coder}); expected a pixel-space UNet2DModel."
            )
        if self.fields.get("time_embedding_type") == "fourier":
            raise BootdiffError(
                f"{where} has time_embedding_type 'fourier': score models (ScoreSdeVe), whose images lie in [0, 1], "
                "are not supported; expected positional or learned."
            )
        if self.fields.get("sample_size") is None:
            raise BootdiffError(f"{where}/config.json has no sample_size, so the image size is unknown; add it there.")
        self.config = checked(UNet2DConfig, self.fields, where / "config.json")
        if self.config.class_embed_type is not None:
            raise BootdiffError(
                f"{where} embeds its classes in a way that cannot be read (class_embed_type = "
                f"{self.config.class_embed_type}); expected num_class_embeds alone, or no classes."
            )
        _check_size(self.config, where)
        if self.config.num_class_embeds is not None:
            self.takes, self.classes, self.guidance = "classes", self.config.num_class_embeds, "free"
            known = parts.null_class
            if known is not None and known >= self.classes:
                raise BootdiffError(f"{parts.folder}: the null class {known} is none of its {self.classes} labels.")
            self.null_class = known

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (channels, height, width) of an image."""
        return (self.config.in_channels, *square(self.config.sample_size))

    def check(self, scheduler: SchedulerConfig) -> None:
        """Refuse a network whose channels or times do not agree with the scheduler."""
        where = self.parts.where("unet")
        _check_channels(self.config, scheduler, where)
        _check_time(self.config, scheduler, where)

    def schedule(self, schedule: Schedule) -> Schedule:
        """Return the schedule; with integer timesteps where the network looks them up in a learned table."""
        return schedule.with_integer_timesteps() if self.config.time_embedding_type == "learned" else schedule

    def call(self, network: nn.Module, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Return the network's output without a learned variance, (b, c, h, w)."""
        out = network(x.to(dtype_of(network)), timestep, class_labels=condition.get("classes"))
        return out.sample[:, : self.config.in_channels]

    def clocks(self, network: Any) -> Sequence[Clock]:
        """Return the one place where the network takes its time, which is beside the table of classes."""
        return [Clock(network.time_proj, network.time_embedding)]

    def trainable(self, network: Any, guided: bool) -> nn.Module:
        """Return a copy of the network in float32 to be trained, without the channels of a predicted variance.

        No stock pipeline would drop these channels.
        """
        from diffusers import UNet2DModel

        channels = self.config.in_channels
        copied: nn.Module = UNet2DModel.from_config(network.config, out_channels=channels)
        weights = {name: value.float() for name, value in network.state_dict().items()}
        for name in ("conv_out.weight", "conv_out.bias"):
            weights[name] = weights[name][:channels]
        copied.load_state_dict(weights)
        return copied

    def rescale(self, network: Any, input_scale: float, output_scale: float) -> None:
        """Scale the weights of the first and last convolutions, and of NCSN++'s ways past them."""
        if input_scale != 1 and network.config.center_input_sample:
            raise BootdiffError("center_input_sample shifts the input; it cannot be scaled.")
        rescale_unet(network, input_scale, output_scale)

    def stock(self, network: Any, scheduler: Any) -> Any:
        """Return a ConsistencyModelPipeline around a student's network.

        It takes one step by default, and is the only stock pipeline of such a network that takes class labels.
        """
        from diffusers import ConsistencyModelPipeline

        network.register_to_config(sample_size=self.shape[-1])  # it takes the side of a square
        return ConsistencyModelPipeline(network, scheduler)


@torch.no_grad()
def rescale_unet(network: Any, input_scale: float, output_scale: float) -> None:
    """Change a U-Net's weights so that it gives ``output_scale · network(input_scale · x)``."""
    for layer in (network.conv_in, *_skips(network.down_blocks)):
        layer.weight *= input_scale
    for layer in (network.conv_out, *_skips(network.up_blocks)):
        layer.weight *= output_scale
        layer.bias *= output_scale


def _skips(blocks: Any) -> list[nn.Conv2d]:
    """Return the layers of NCSN++ by which blocks read the input, or add to the output, past all others."""
    return [block.skip_conv for block in blocks if getattr(block, "skip_conv", None) is not None]


def _check_size(config: UNet2DConfig, where: Any) -> None:
    halvings = len(config.down_block_types) - 1
    if config.side <= 0:
        raise BootdiffError(f"{where}: sample_size should be the side of a square, got {config.sample_size}.")
    if config.side % 2**halvings:
        raise BootdiffError(
            f"{where} halves its images {halvings} times (down_block_types), and a sample_size of {config.side} cannot "
            f"be; expected a multiple of {2**halvings}."
        )


def _check_channels(config: UNet2DConfig, scheduler: SchedulerConfig, where: Any) -> None:
    given, made = config.in_channels, config.out_channels
    learned = getattr(scheduler, "variance_type", None) in ("learned", "learned_range")
    if made != given and not (made == 2 * given and learned):
        raise BootdiffError(
            f"{where} takes {given} channels and gives {made} (out_channels); expected the same number, or twice as "
            "many where the scheduler's variance_type is learned or learned_range (image-conditioned networks are not "
            "supported)."
        )


def _check_time(config: UNet2DConfig, scheduler: SchedulerConfig, where: Any) -> None:
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
