"""Training an autoencoder on images, for teachers on latents (Kingma & Welling, 2014; Rombach et al., 2022)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from bootdiff.core.turn import Turn
from bootdiff.data.sources import Batch, Images
from bootdiff.methods.base import Learner, Loss, Networks, Stateless


class Autoencoder(nn.Module):
    """A diffusers AutoencoderKL in training: it turns images and noise into images and the posterior's divergence."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae.requires_grad_(True).eval()

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return reconstructions (b, c, h, w) and the KL divergence from the standard normal (b,), both float32."""
        posterior = self.vae.encode(images).latent_dist
        latents = posterior.mean + posterior.std * noise
        return self.vae.decode(latents).sample.float(), posterior.kl().float()


@dataclass
class Autoencoding(Stateless):
    """The objective of an autoencoder: it minimises E |x − x̂| + kl_weight · KL.

    Args:
        latent_shape: the shape of one latent, without the batch.
        kl_weight: the weight of KL. It is small, because latents should be smooth, not normally distributed.
    """

    source: Images
    autoencoder: Learner
    latent_shape: tuple[int, ...]
    kl_weight: float

    def learners(self) -> Mapping[str, Learner]:
        """Return the learners by name: the autoencoder alone."""
        return {"autoencoder": self.autoencoder}

    def frozen(self) -> Sequence[nn.Module]:
        """Return no networks, because none is frozen."""
        return ()

    def turns(self, step: int) -> Sequence[str]:
        """Return the names of a step's turns: one, the autoencoder's."""
        return ("autoencoder",)

    def losses(self, networks: Networks, turn: Turn, batch: Batch) -> Sequence[Callable[[], Loss]]:
        """Return the terms of the loss: one, the reconstruction."""
        return [lambda: self.reconstruction(networks["autoencoder"], turn, batch)]

    def reconstruction(self, autoencoder: nn.Module, turn: Turn, batch: Batch) -> Loss:
        """Return the mean absolute error of a pixel, plus the weighted divergence divided by the number of pixels."""
        made, divergence = autoencoder(batch.data, turn.draw.normal("latent", self.latent_shape))
        error = (made - batch.data).abs().mean()
        divergence = divergence.mean() / batch.data[0].numel()
        return Loss(error + self.kl_weight * divergence, {"error": error.detach(), "divergence": divergence.detach()})
