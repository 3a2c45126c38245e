"""The adapters of Stable Diffusion 1.x, 2.x and XL: U-Nets on latents and prompts.

Source: Rombach et al., 2022; Podell et al., 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.teachers.adapters.base import (
    WEIGHT_DIM,
    Adapter,
    Clock,
    Guidance,
    Size,
    dtype_of,
    square,
    weight_embedding,
)
from bootdiff.teachers.adapters.unet2d import rescale_unet
from bootdiff.teachers.loading.components import Components
from bootdiff.teachers.loading.scheduler import checked
from bootdiff.teachers.one_call import StockCall


class ConditionalConfig(BaseModel):
    """The fields of the network's config that are read; the defaults are those of its class."""

    model_config = ConfigDict(extra="ignore", strict=True)

    sample_size: Size
    in_channels: int = Field(4, ge=1)
    out_channels: int = Field(4, ge=1)
    block_out_channels: list[int] = Field([320, 640, 1280, 1280], min_length=1)
    cross_attention_dim: int = Field(1280, ge=1)
    encoder_hid_dim: int | None = Field(None, ge=1)
    time_cond_proj_dim: int | None = Field(None, ge=1)
    class_embed_type: str | None = None
    projection_class_embeddings_input_dim: int | None = Field(None, ge=1)
    addition_time_embed_dim: int | None = Field(None, ge=1)


class ConditionalUNet(Adapter):
    """The common part of the adapters of every UNet2DConditionModel on prompts."""

    network_class = "UNet2DConditionModel"
    takes = "prompts"
    guidance: Guidance = "free"
    encoders: tuple[str, ...] = ("tokenizer", "text_encoder")

    def __init__(self, parts: Components) -> None:
        super().__init__(parts)
        if self.fields.get("sample_size") is None:
            where = parts.where("unet")
            raise BootdiffError(f"{where}/config.json has no sample_size, so the image size is unknown; add it there.")
        self.config = checked(ConditionalConfig, self.fields, parts.where("unet") / "config.json")
        if self.config.time_cond_proj_dim is not None:
            self.guidance, self.usual_weight, self.weight_slot = "embedded", 7.5, True

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (channels, height, width) of a sample."""
        return (self.channels, *square(self.config.sample_size))

    @property
    def channels(self) -> int:
        """The number of channels of a sample."""
        return self.config.in_channels

    def clocks(self, network: Any) -> Sequence[Clock]:
        """Return the one place where the network takes its time."""
        return [Clock(network.time_proj, network.time_embedding)]

    def text(self, network: Any, condition: Condition) -> dict[str, Tensor]:
        """Return the network's arguments for the prompt's embedding, and for the weight where it takes one."""
        dtype, words = dtype_of(network), {"encoder_hidden_states": condition["text"]}
        width = network.config.time_cond_proj_dim
        if width is not None:
            words["timestep_cond"] = weight_embedding(condition["guidance"], width)
        return {name: value.to(dtype) for name, value in words.items()}

    def rescale(self, network: nn.Module, input_scale: float, output_scale: float) -> None:
        """Scale the weights of the first and last convolutions."""
        rescale_unet(network, input_scale, output_scale)

    def text_shape(self) -> tuple[int, int]:
        """Return (tokens, width) of a prompt's embedding."""
        width = self.config.encoder_hid_dim or self.config.cross_attention_dim
        return 77, width


class StableDiffusion(ConditionalUNet):
    """The adapter of a StableDiffusionPipeline."""

    pipelines: ClassVar[tuple[str, ...]] = ("StableDiffusionPipeline", "LatentConsistencyModelPipeline")
    windows: tuple[tuple[str, int], ...] = (("tokenizer", 77),)
    weight_slot = True
    resizable = True

    def __init__(self, parts: Components) -> None:
        super().__init__(parts)
        made = self.config.out_channels
        if made != self.channels:
            raise BootdiffError(
                f"{parts.where('unet')} takes {self.channels} channels and gives {made}: an inpainting, depth or "
                "instruction model, which is not supported; expected a text-to-image model."
            )
        parts.check("vae")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (channels, height, width) of a latent."""
        height, width = square(self.config.sample_size)
        halvings = 2 ** (len(self.config.block_out_channels) - 1)
        return self.channels, self.side(height, halvings), self.side(width, halvings)

    def blank(self, batch: int) -> Condition:
        """Return a condition of empty embeddings as the entry ``text``, (b, tokens, width)."""
        return Condition({"text": torch.zeros(batch, *self.text_shape())})

    def call(self, network: Any, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Return the network's output, (b, c, h, w)."""
        return network(x.to(dtype_of(network)), timestep, **self.text(network, condition)).sample

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Condition:
        """Return CLIP's embeddings of the prompts as the entry ``text``, (b, tokens, width)."""
        text, _ = pipeline.encode_prompt(list(prompts), device_of(pipeline), 1, False)
        return Condition({"text": text})

    def trainable(self, network: Any, guided: bool) -> nn.Module:
        """Return a copy of the network to be trained; if ``guided``, with ``cond_proj`` at zero for the weight.

        This is LCM's slot for the weight, which the stock pipeline serves.
        """
        return with_weight_slot(network) if guided else super().trainable(network, guided)

    def stock(self, network: Any, scheduler: Any) -> Any:
        """Return the pipeline; that of a consistency student is told a guidance weight and adds no guidance of its own.

        For Stable Diffusion 1.x and 2.x this is a LatentConsistencyModelPipeline, and for XL its own.
        """
        if type(scheduler).__name__ != "LCMScheduler":
            return super().stock(network, scheduler)
        if network.config.time_cond_proj_dim is None:
            with torch.random.fork_rng(devices=[]):  # the slot is drawn before it is zero
                network = with_weight_slot(network)
        network.register_to_config(sample_size=self.shape[-1])  # one number, by which the pipeline multiplies
        return self.consistent(super().stock(network, scheduler))

    def consistent(self, pipeline: Any) -> Any:
        """Return the pipeline of a consistency student, with the components of the usual one."""
        from diffusers import LatentConsistencyModelPipeline

        return LatentConsistencyModelPipeline(**pipeline.components, requires_safety_checker=False)

    def scheduler(self, call: StockCall, limit: Any, t_max: float) -> Any:
        """Return a DDIM scheduler with steps_offset 1, on which the pipeline insists; trailing spacing ignores it."""
        return call.scheduler("DDIMScheduler", limit, t_max, steps_offset=1)


class StableDiffusionXL(StableDiffusion):
    """The adapter of a StableDiffusionXLPipeline: two encoders, and the image's size and crop as a condition."""

    pipelines = ("StableDiffusionXLPipeline",)
    encoders = ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2")
    windows = (
        ("tokenizer", 77),
        ("tokenizer_2", 77),
    )

    def consistent(self, pipeline: Any) -> Any:
        """Return the same pipeline: a StableDiffusionXLPipeline is told the weight wherever its network takes one."""
        return pipeline

    def blank(self, batch: int) -> Condition:
        """Return a condition of empty embeddings: ``text``, (b, tokens, width), and ``pooled``, (b, width)."""
        width = (self.config.projection_class_embeddings_input_dim or 0) - 6 * (
            self.config.addition_time_embed_dim or 0
        )
        return Condition({**super().blank(batch), "pooled": torch.zeros(batch, width)})

    def call(self, network: Any, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Return the network's output (b, c, h, w), told that the image is whole and its crop starts at the corner."""
        factor = self.factor
        height, width = self.shape[1] * factor, self.shape[2] * factor
        ids = _size_ids(height, width, x.device, dtype_of(network))
        pooled = condition["pooled"].to(dtype_of(network))
        added = {"text_embeds": pooled, "time_ids": ids.expand(len(x), -1)}
        words = self.text(network, condition)
        return network(x.to(dtype_of(network)), timestep, added_cond_kwargs=added, **words).sample

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Condition:
        """Return both encoders' embeddings as ``text``, and the second one's summary as ``pooled``."""
        text, _, pooled, _ = pipeline.encode_prompt(
            list(prompts), device=device_of(pipeline), do_classifier_free_guidance=False
        )
        return Condition({"text": text, "pooled": pooled})

    def encode_negative(self, pipeline: Any, prompt: str | None) -> Condition:
        """Return the condition that guidance leads away from, a batch of one.

        For an empty prompt it is zeros where the pipeline's config says so.
        """
        _, text, _, pooled = pipeline.encode_prompt([""], device=device_of(pipeline), negative_prompt=prompt)
        return Condition({"text": text, "pooled": pooled})


@lru_cache(maxsize=8)
def _size_ids(height: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return what SDXL is told of sizes and crop, (6,).

    It is copied to a device once, because each copy would make a GPU wait.
    """
    return torch.tensor([height, width, 0, 0, height, width], device=device, dtype=dtype)


def with_weight_slot(network: Any) -> nn.Module:
    """Return a trainable copy of a UNet2DConditionModel that takes a guidance weight, at first without effect."""
    from diffusers import UNet2DConditionModel

    if network.config.time_cond_proj_dim is not None:
        weights = {name: value.float() for name, value in network.state_dict().items()}
        grown: Any = UNet2DConditionModel.from_config(network.config)
        grown.load_state_dict(weights)
        return grown
    # The override must be a keyword argument: inside the config it would be ignored without a word.
    grown = UNet2DConditionModel.from_config(network.config, time_cond_proj_dim=WEIGHT_DIM)
    grown.load_state_dict({name: value.float() for name, value in network.state_dict().items()}, strict=False)
    nn.init.zeros_(grown.time_embedding.cond_proj.weight)
    return grown.eval()


def device_of(pipeline: Any) -> torch.device:
    """Return the device on which a pipeline's encoders are."""
    encoders = [part for name, part in pipeline.components.items() if "encoder" in name and isinstance(part, nn.Module)]
    return next((next(encoder.parameters()).device for encoder in encoders), torch.device("cpu"))
