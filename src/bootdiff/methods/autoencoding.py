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
    """A diffusers AutoencoderKL in training: images and noise to images and the posterior's divergence."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae.requires_grad_(True).eval()

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """(reconstructions (b, c, h, w), KL from the standard normal (b,)), both in float32."""
        posterior = self.vae.encode(images).latent_dist
        latents = posterior.mean + posterior.std * noise
        return self.vae.decode(latents).sample.float(), posterior.kl().float()


@dataclass
class Autoencoding(Stateless):
    """E |x − x̂| + weight · KL.

    Args:
        latent_shape: of one latent.
        kl_weight: small: latents should be smooth, not normal.
    """

    source: Images
    autoencoder: Learner
    latent_shape: tuple[int, ...]
    kl_weight: float

    def learners(self) -> Mapping[str, Learner]:
        """The autoencoder."""
        return {"autoencoder": self.autoencoder}

    def frozen(self) -> Sequence[nn.Module]:
        """Nothing is frozen."""
        return ()

    def turns(self, step: int) -> Sequence[str]:
        """One turn a step."""
        return ("autoencoder",)

    def losses(self, networks: Networks, turn: Turn, batch: Batch) -> Sequence[Callable[[], Loss]]:
        """One term."""
        return [lambda: self.reconstruction(networks["autoencoder"], turn, batch)]

    def reconstruction(self, autoencoder: nn.Module, turn: Turn, batch: Batch) -> Loss:
        """The absolute error of every pixel, and the divergence for each of them."""
        made, divergence = autoencoder(batch.images, turn.draw.normal("latent", self.latent_shape))
        error = (made - batch.images).abs().mean()
        divergence = divergence.mean() / batch.images[0].numel()
        return Loss(error + self.kl_weight * divergence, {"error": error.detach(), "divergence": divergence.detach()})
