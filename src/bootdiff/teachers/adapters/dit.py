"""The adapter of DiT: transformers on latents and class labels (Peebles & Xie, 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.teachers.adapters.base import Adapter, Clock, Guidance, dtype_of, square
from bootdiff.teachers.loading.components import Components
from bootdiff.teachers.loading.scheduler import checked


class DiTConfig(BaseModel):
    """The fields of the network's config that are read; the defaults are those of its class."""

    model_config = ConfigDict(extra="ignore", strict=True)

    in_channels: int = Field(4, ge=1)
    out_channels: int | None = Field(None, ge=1)
    num_embeds_ada_norm: int = Field(1000, ge=1)
    #: the side of a latent; it is limited because the network makes a table of all places
    sample_size: Annotated[int, Field(ge=1, le=512)] | list[Annotated[int, Field(ge=1, le=512)]] = 32


class DiT(Adapter):
    """The adapter of a DiTPipeline.

    The learned variance stays in the student's network, because the stock pipeline drops it.
    """

    pipelines = ("DiTPipeline",)
    network_part, network_class = "transformer", "DiTTransformer2DModel"
    takes: Literal["nothing", "classes", "prompts"] = "classes"
    draws_noise = False
    guidance: Guidance = "free"
    usage = "pipe(class_labels=[{label}], num_inference_steps=1, guidance_scale=1, generator=generator)"

    def __init__(self, parts: Components) -> None:
        super().__init__(parts)
        parts.check("vae")
        self.config = checked(DiTConfig, self.fields, parts.where("transformer") / "config.json")
        given, made = self.config.in_channels, self.config.out_channels
        if made not in (None, given, 2 * given):
            raise BootdiffError(
                f"{parts.where('transformer')} takes {given} channels and gives {made} (out_channels); expected the "
                "same number, or twice as many where it learned a variance."
            )
        # The table has one row more than there are classes: what the label dropout of training used.
        self.classes = self.null_class = self.config.num_embeds_ada_norm
        if self.classes == 1:  # one class tells nothing: the network is unconditional, and is always told label 0
            self.takes, self.guidance, self.classes, self.null_class = "nothing", "none", 0, None
            self.remark = "It is unconditional; its pipeline must be told a class, and label 0 is the only one."

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (channels, height, width) of a latent."""
        return (self.config.in_channels, *square(self.config.sample_size))

    def call(self, network: nn.Module, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Return the network's output without a learned variance, (b, c, h, w).

        The network must be in evaluation mode, in which labels are never dropped.
        """
        labels = condition["classes"] if self.classes else timestep.new_zeros(len(x), dtype=torch.long)
        out = network(x.to(dtype_of(network)), timestep=timestep, class_labels=labels)
        return out.sample[:, : self.shape[0]]

    def clocks(self, network: Any) -> Sequence[Clock]:
        """Return the places where the network takes its time: one in every block."""
        embeddings = [block.norm1.emb for block in network.transformer_blocks]
        return [Clock(embedding.time_proj, embedding.timestep_embedder) for embedding in embeddings]

    @torch.no_grad()
    def rescale(self, network: Any, input_scale: float, output_scale: float) -> None:
        """Scale the weights of the first and last layers."""
        network.pos_embed.proj.weight *= input_scale
        network.proj_out_2.weight *= output_scale
        network.proj_out_2.bias *= output_scale
