"""DeepFloyd IF: pixel-space U-Nets on T5 prompts, a base stage and a super-resolution stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.teachers.adapters.base import dtype_of
from bootdiff.teachers.adapters.stable_diffusion import ConditionalUNet, device_of
from bootdiff.teachers.loading.components import Components
from bootdiff.teachers.one_call import StockCall


class DeepFloyd(ConditionalUNet):
    """The adapter of an IFPipeline, DeepFloyd's base stage.

    The learned variance stays in the network, because the stock pipeline drops it.
    """

    pipelines = ("IFPipeline",)
    windows = (("tokenizer", 77),)
    cleaners = ("bs4", "ftfy")

    def __init__(self, parts: Components) -> None:
        super().__init__(parts)
        given, made = self.channels, self.config.out_channels
        if made != 2 * given:
            raise BootdiffError(
                f"{parts.where('unet')} makes images of {given} channels and gives {made} (out_channels); expected "
                f"{2 * given}, because the stock pipeline drops a learned variance."
            )

    def blank(self, batch: int) -> Condition:
        """Return a condition of empty embeddings as the entry ``text``, (b, tokens, width)."""
        return Condition({"text": torch.zeros(batch, *self.text_shape())})

    def call(self, network: Any, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Return the network's output without the variance, (b, 3, h, w)."""
        out = network(x.to(dtype_of(network)), timestep, **self.text(network, condition))
        return out.sample[:, : self.channels]

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Condition:
        """Return T5's embeddings of the prompts, (b, tokens, width), cleaned as the stock pipeline cleans them."""
        text, _ = pipeline.encode_prompt(list(prompts), False, device=device_of(pipeline), clean_caption=True)
        return Condition({"text": text})

    #: the pipeline asks a scheduler for its variance_type, which DDIMScheduler does not have
    takes_steps = False

    def scheduler(self, call: StockCall, limit: Any, t_max: float) -> Any:
        """Return a DDPM scheduler with a fixed variance.

        The pipeline asks its scheduler for a variance_type, and with a fixed one it drops the learned variance.
        """
        return call.scheduler("DDPMScheduler", limit, t_max, variance_type="fixed_small")


class DeepFloydUpscaler(DeepFloyd):
    """The adapter of an IFSuperResolutionPipeline.

    It is also conditioned on a small image, which is enlarged and noised to a level that the network is told.
    """

    pipelines = ("IFSuperResolutionPipeline",)
    upscales = True
    prepare = (
        'base = DiffusionPipeline.from_pretrained("folder-of-the-base-stage\'s-student")\n'
        'small = base("a prompt", num_inference_steps=1, guidance_scale=1, output_type="pt").images\n'
    )
    usage = (
        'pipe("a prompt", image=small, num_inference_steps=1, guidance_scale=1, '
        "noise_level={noise_level}, generator=generator)"
    )

    def __init__(self, parts: Components) -> None:
        super().__init__(parts)
        parts.check("image_noising_scheduler")
        if self.config.class_embed_type != "timestep":
            raise BootdiffError(
                f"{parts.where('unet')} is told no noise level (class_embed_type is "
                f"{self.config.class_embed_type}); expected timestep, as in a super-resolution stage."
            )

    @property
    def channels(self) -> int:
        """The number of channels of a sample: half of the network's, which also takes the enlarged small image."""
        return self.config.in_channels // 2

    def blank(self, batch: int) -> Condition:
        """Return a condition of empty embeddings, grey images (b, *shape) and noise levels of 0."""
        level = torch.zeros(batch, dtype=torch.long)
        return Condition({**super().blank(batch), "image": torch.zeros(batch, *self.shape), "noise_level": level})

    def call(self, network: Any, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Return the network's output without the variance, (b, 3, h, w)."""
        both = torch.cat([x, condition["image"].to(x)], dim=1).to(dtype_of(network))
        words = self.text(network, condition)
        out = network(both, timestep, class_labels=condition["noise_level"], **words)
        return out.sample[:, : self.channels]

    def upscaled(self, images: Tensor, noise: Tensor, level: int | Tensor) -> Condition:
        """Return the condition that small images in [−1, 1] make, enlarged and noised as the stock pipeline does it.

        Args:
            images: the images of the base stage, (b, 3, h, w).
            noise: standard normal noise, (b, *shape).
            level: a timestep of the noising scheduler, one for all images or (b,), one for each.
        """
        large = interpolate(images, self.shape[1:], mode="bilinear", align_corners=True)
        one = level if isinstance(level, Tensor) else torch.full((), level, device=images.device)
        levels = one.to(images.device).long().expand(len(images))
        scheduler = self.parts.load("image_noising_scheduler")
        return Condition({"image": scheduler.add_noise(large, noise, timesteps=levels), "noise_level": levels})

    def rescale(self, network: nn.Module, input_scale: float, output_scale: float) -> None:
        """Refuse to scale the network, because the small image enters by the same convolution.

        Raises:
            BootdiffError: always.
        """
        raise BootdiffError("a super-resolution stage with this scheduler cannot be scaled for export.")
