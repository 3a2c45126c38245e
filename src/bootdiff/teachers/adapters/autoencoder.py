"""A pipeline's autoencoder, which turns samples of the denoising network into images and back."""

from __future__ import annotations

import copy
import threading
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from bootdiff.core.transfer import settled
from bootdiff.teachers.loading.components import Components
from bootdiff.teachers.loading.scheduler import checked

#: how many latents are decoded at a time: an autoencoder needs far more memory than the network
DECODED_AT_ONCE = 4
#: held while an autoencoder is loaded, because several threads may ask for it at the same time
_LOADING = threading.Lock()


class VAEConfig(BaseModel):
    """The fields of an autoencoder's config on which latents depend; the defaults are those of its class."""

    model_config = ConfigDict(extra="ignore", strict=True)

    scaling_factor: float = Field(0.18215, gt=0, allow_inf_nan=False)
    shift_factor: float | None = Field(None, allow_inf_nan=False)
    block_out_channels: list[int] = Field([64], min_length=1)
    latent_channels: int = Field(4, ge=1)
    in_channels: int = Field(3, ge=1)


class Autoencoder:
    """The component ``vae``, loaded when it is first asked for and kept until ``release``.

    Args:
        parts: the components of a pipeline that has an autoencoder.

    Raises:
        BootdiffError: if the autoencoder is not there, or its config cannot be read.
    """

    def __init__(self, parts: Components) -> None:
        parts.check("vae")
        where = parts.where("vae") / "config.json"
        checked(VAEConfig, parts.config("vae"), where)  # names the field that would only fail its class
        self.config = checked(VAEConfig, parts.full_config("vae"), where)
        self.parts = parts
        self._loaded: Any = None

    def release(self) -> None:
        """Forget the autoencoder, so that its memory can be used again."""
        if self._loaded is not None:
            self._loaded.to("cpu")
        self._loaded = None
        self.parts.release("vae")

    def decode(self, sample: Tensor) -> Tensor:
        """Return images (b, c, h, w) in [−1, 1] and float32 from samples of the network, decoded a few at a time."""
        if len(sample) > DECODED_AT_ONCE:
            return torch.cat([self.decode(part) for part in sample.split(DECODED_AT_ONCE)])
        vae = settled(self._module(), sample.device)
        latents = sample / self.config.scaling_factor
        statistics = _statistics(vae, latents)
        if statistics is not None:
            mean, deviation = statistics
            latents = latents * deviation + mean
        latents = latents + (self.config.shift_factor or 0.0)
        return vae.decode(latents.to(vae.dtype)).sample.float()

    def encode(self, images: Tensor) -> Tensor:
        """Return samples of the network from images (b, c, h, w) in [−1, 1].

        This is the inverse of ``decode``, as far as there is one.
        """
        vae = settled(self._module(), images.device)
        encoded = vae.encode(images.to(vae.dtype))  # an AutoencoderTiny answers latents themselves
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        latents = latents.float() - (self.config.shift_factor or 0.0)
        statistics = _statistics(vae, latents)
        if statistics is not None:
            mean, deviation = statistics
            latents = (latents - mean) / deviation
        return latents * self.config.scaling_factor

    def _module(self) -> Any:
        """Return the autoencoder; one in float16 is turned into float32, because some overflow in float16."""
        with _LOADING:
            if self._loaded is None:
                vae = self.parts.load("vae")
                self._loaded = copy.deepcopy(vae).float() if vae.dtype == torch.float16 else vae
            return self._loaded


def _statistics(vae: Any, latents: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return (mean, deviation) of the autoencoder's latents, (1, c, 1, 1) each; None where its config has none."""
    mean, deviation = (getattr(vae.config, name, None) for name in ("latents_mean", "latents_std"))
    if mean is None or deviation is None:
        return None
    view = (1, -1, 1, 1)
    return torch.tensor(mean).view(view).to(latents), torch.tensor(deviation).view(view).to(latents)
