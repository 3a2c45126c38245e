"""The adapter of Flux, a flow transformer on packed latents and prompts that may be told its guidance weight.

Source: Black Forest Labs, 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.teachers.adapters.base import Clock, dtype_of
from bootdiff.teachers.adapters.stable_diffusion import device_of
from bootdiff.teachers.adapters.stable_diffusion_3 import FlowTransformer
from bootdiff.teachers.loading.components import Components
from bootdiff.teachers.loading.scheduler import checked
from bootdiff.teachers.one_call import StockCall

#: the side of latents of the pipeline's default size
SIDE = 128


class FluxConfig(BaseModel):
    """The fields of the network's config that are read; the defaults are those of its class."""

    model_config = ConfigDict(extra="ignore", strict=True)

    in_channels: int = Field(64, ge=4)
    guidance_embeds: bool = False
    joint_attention_dim: int = Field(4096, ge=1)
    pooled_projection_dim: int = Field(768, ge=1)


class Flux(FlowTransformer):
    """The adapter of a FluxPipeline. Samples are latents (c, h, w); the network sees a row of their 2×2 patches."""

    pipelines = ("FluxPipeline",)
    network_class = "FluxTransformer2DModel"
    encoders = ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2")
    windows = (("tokenizer_2", 512),)

    def __init__(self, parts: Components) -> None:
        super().__init__(parts)
        self.config = checked(FluxConfig, self.fields, parts.where("transformer") / "config.json")
        self.guidance = "free"
        if self.config.guidance_embeds:
            self.guidance, self.usual_weight, self.weight_slot = "embedded", 3.5, True
        if parts.size is not None:  # no config of the pipeline holds a default size
            asked = f'"a prompt", height={parts.size}, width={parts.size}, num_inference_steps=1'
            self.usage = f"pipe({asked}, guidance_scale={{weight}}, generator=generator)"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (channels, height, width) of a latent."""
        side = self.side(SIDE, patch=2)
        return (self.config.in_channels // 4, side, side)

    @property
    def tokens(self) -> int:
        """The number of 2×2 patches of a latent."""
        return self.shape[1] * self.shape[2] // 4

    def blank(self, batch: int) -> Condition:
        """Return a condition of empty embeddings: ``text``, (b, 512, width), and ``pooled``, (b, width)."""
        text = torch.zeros(batch, 512, self.config.joint_attention_dim)
        pooled = torch.zeros(batch, self.config.pooled_projection_dim)
        return Condition({"text": text, "pooled": pooled})

    def call(self, network: Any, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Return the network's prediction of the velocity, (b, c, h, w)."""
        dtype, (_, height, width) = dtype_of(network), self.shape
        text = condition["text"].to(dtype)
        out = network(
            hidden_states=pack(x.to(dtype)),
            timestep=timestep / 1000,  # the network multiplies it again
            guidance=condition["guidance"].float() if network.config.guidance_embeds else None,
            pooled_projections=condition["pooled"].to(dtype),
            encoder_hidden_states=text,
            txt_ids=torch.zeros(text.shape[1], 3, device=x.device, dtype=dtype),
            img_ids=patch_ids(height // 2, width // 2, x.device).to(dtype),
        ).sample
        return unpack(out, height, width)

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Condition:
        """Return T5's embeddings of the prompts as ``text``, and CLIP's summaries of them as ``pooled``."""
        text, pooled, _ = pipeline.encode_prompt(list(prompts), device=device_of(pipeline))
        return Condition({"text": text, "pooled": pooled})

    def scheduler(self, call: StockCall, limit: Any, t_max: float) -> Any:
        """Return a flow scheduler with one step that is said to use flow sigmas.

        Otherwise this pipeline would space its steps itself.
        """
        scheduler = super().scheduler(call, limit, t_max)
        scheduler.register_to_config(use_flow_sigmas=True)
        return scheduler

    def weight_clock(self, network: Any) -> Clock | None:
        """Return the embedder of the guidance weight; None where the network takes no weight."""
        embedding = network.time_text_embed
        return Clock(embedding.time_proj, embedding.guidance_embedder) if network.config.guidance_embeds else None


def pack(latents: Tensor) -> Tensor:
    """Return latents (b, c, h, w) as a row of 2×2 patches, (b, h/2 · w/2, 4c)."""
    batch, channels, height, width = latents.shape
    patches = latents.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(batch, height * width // 4, 4 * channels)


def patch_ids(rows: int, columns: int, device: torch.device | str = "cpu") -> Tensor:
    """Return (0, row, column) of every patch, (rows · columns, 3), made on ``device``."""
    ids = torch.zeros(rows, columns, 3, device=device)
    ids[..., 1] = torch.arange(rows, device=device)[:, None]
    ids[..., 2] = torch.arange(columns, device=device)[None, :]
    return ids.reshape(-1, 3)


def unpack(packed: Tensor, height: int, width: int) -> Tensor:
    """Return a row of 2×2 patches, (b, h/2 · w/2, 4c), as latents (b, c, h, w)."""
    batch, _, channels = packed.shape
    grid = packed.view(batch, height // 2, width // 2, channels // 4, 2, 2)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels // 4, height, width)
