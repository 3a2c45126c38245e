"""The adapter of Stable Diffusion 3, a flow transformer on latents and prompts (Esser et al., 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.teachers.adapters.base import Adapter, Clock, Guidance, Size, dtype_of, square
from bootdiff.teachers.adapters.stable_diffusion import device_of
from bootdiff.teachers.loading.components import Components
from bootdiff.teachers.loading.scheduler import checked
from bootdiff.teachers.one_call import StockCall


class FlowTransformer(Adapter):
    """The common part of the adapters of flow transformers."""

    network_part = "transformer"
    takes = "prompts"
    flow = True
    resizable = True

    def __init__(self, parts: Components) -> None:
        super().__init__(parts)
        parts.check("vae")

    def clocks(self, network: Any) -> Sequence[Clock]:
        """Return the one place where the network takes its time; the embeddings of text and weight are added to it."""
        embedding = network.time_text_embed
        return [Clock(embedding.time_proj, embedding.timestep_embedder)]

    def scheduler(self, call: StockCall, limit: Any, t_max: float) -> Any:
        """Return a flow scheduler with one step from sigma = 1 to 0."""
        return call.flow_scheduler(limit)

    @torch.no_grad()
    def rescale(self, network: Any, input_scale: float, output_scale: float) -> None:
        """Scale the weights of the last layer; an input scale other than 1 is refused."""
        if input_scale != 1:
            super().rescale(network, input_scale, output_scale)
        network.proj_out.weight *= output_scale
        network.proj_out.bias *= output_scale


class SD3Config(BaseModel):
    """The fields of the network's config that are read; the defaults are those of its class."""

    model_config = ConfigDict(extra="ignore", strict=True)

    sample_size: Size = 128
    in_channels: int = Field(16, ge=1)
    patch_size: int = Field(2, ge=1)
    pos_embed_max_size: int = Field(96, ge=1)
    joint_attention_dim: int = Field(4096, ge=1)
    pooled_projection_dim: int = Field(2048, ge=1)


class StableDiffusion3(FlowTransformer):
    """The adapter of a StableDiffusion3Pipeline."""

    pipelines = ("StableDiffusion3Pipeline",)
    network_class = "SD3Transformer2DModel"
    guidance: Guidance = "free"
    encoders: tuple[str, ...] = (
        "tokenizer",
        "text_encoder",
        "tokenizer_2",
        "text_encoder_2",
        "tokenizer_3",
        "text_encoder_3",
    )
    windows = (("tokenizer_3", 256),)

    def __init__(self, parts: Components) -> None:
        super().__init__(parts)
        self.config = checked(SD3Config, self.fields, parts.where("transformer") / "config.json")
        if parts.kind("text_encoder_3") is None:  # the pipeline runs without T5, on CLIP's window
            self.encoders, self.windows = self.encoders[:4], (("tokenizer", 77),)
            self.absent = ("text_encoder_3", "tokenizer_3")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (channels, height, width) of a latent."""
        height, width = square(self.config.sample_size)
        patch, largest = self.config.patch_size, self.config.pos_embed_max_size
        shape = self.config.in_channels, self.side(height, patch), self.side(width, patch)
        if max(shape[1:]) > patch * largest:
            raise BootdiffError(
                f"--size {self.parts.size} is above {patch * largest * self.factor}, this model's limit."
            )
        return shape

    @property
    def tokens(self) -> int:
        """The number of patches of a latent."""
        patch = self.config.patch_size
        return (self.shape[1] // patch) * (self.shape[2] // patch)

    def blank(self, batch: int) -> Condition:
        """Return a condition of empty embeddings: 77 tokens of CLIP and 256 of T5, and CLIP's summaries."""
        text = torch.zeros(batch, 77 + 256, self.config.joint_attention_dim)
        return Condition({"text": text, "pooled": torch.zeros(batch, self.config.pooled_projection_dim)})

    def call(self, network: Any, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Return the network's prediction of the velocity, (b, c, h, w)."""
        dtype = dtype_of(network)
        return network(
            hidden_states=x.to(dtype),
            timestep=timestep,
            encoder_hidden_states=condition["text"].to(dtype),
            pooled_projections=condition["pooled"].to(dtype),
        ).sample

    def stand_in(self) -> Any:
        """Return a network without weights where the pipeline has no T5, and None otherwise.

        Without T5 the pipeline asks the network for the width of T5's embedding.
        """
        from diffusers import SD3Transformer2DModel

        if self.parts.kind("text_encoder_3") is not None:
            return None
        with torch.device("meta"):
            return SD3Transformer2DModel.from_config(self.fields)

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Condition:
        """Return the three encoders' embeddings as ``text``, and CLIP's summaries as ``pooled``."""
        words = list(prompts)
        text, _, pooled, _ = pipeline.encode_prompt(
            words, words, words, device=device_of(pipeline), do_classifier_free_guidance=False
        )
        return Condition({"text": text, "pooled": pooled})
