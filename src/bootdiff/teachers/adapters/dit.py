"""The adapter of DiT: transformers on latents and class labels (Peebles & Xie, 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.teachers.adapters.base import Adapter, Clock, dtype_of, square
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
    takes = "classes"
    guidance = "free"
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

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (channels, height, width) of a latent."""
        return (self.config.in_channels, *square(self.config.sample_size))

    def call(self, network: nn.Module, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Return the network's output without a learned variance, (b, c, h, w).

        The network must be in evaluation mode, in which labels are never dropped.
        """
        out = network(x.to(dtype_of(network)), timestep=timestep, class_labels=condition["classes"])
        return out.sample[:, : self.shape[0]]

    def clocks(self, network: Any) -> Sequence[Clock]:
        """Return the places where the network takes its time: one in every block."""
        embeddings = [block.norm1.emb for block in network.transformer_blocks]
        return [Clock(embedding.time_proj, embedding.timestep_embedder) for embedding in embeddings]
