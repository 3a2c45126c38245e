"""The training of an autoencoder, which is the first stage of a teacher on latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bootdiff.data.pictures import rows_grid, to_unit
from bootdiff.data.sources import Images
from bootdiff.methods.autoencoding import Autoencoder, Autoencoding
from bootdiff.methods.base import Learner, sampled
from bootdiff.storage.files import write_whole
from bootdiff.teaching.settings import TeacherSettings
from bootdiff.training.accelerator import make_accelerator
from bootdiff.training.loop import Loop

#: the number of images that are encoded at a time
ENCODED_AT_ONCE = 256
#: the number of reconstructions that are shown during training
SHOWN = 12


def train_autoencoder(vae: Any, pixels: Tensor, folder: Path, settings: TeacherSettings) -> Tensor:
    """Train a pipeline's AutoencoderKL, set its scaling factor, and return the images' latents, of deviation 1.

    Args:
        vae: the autoencoder with random weights; it is trained in place.
        pixels: the images, (n, c, h, w) in uint8.
        folder: the folder of its checkpoints; a finished training is read from there.
    """
    own = settings.model_copy(update={"steps": settings.autoencoder_steps, "learning_rate": settings.autoencoder_rate})
    accelerator = make_accelerator(own, folder)
    folder.mkdir(parents=True, exist_ok=True)
    learner = Learner(Autoencoder(vae), own.learning_rate, averages=sampled(own.ema_decay))
    factor = 2 ** (len(settings.autoencoder_channels) - 1)
    shape = (settings.latent_channels, *(side // factor for side in pixels.shape[2:]))
    objective = Autoencoding(Images(pixels), learner, shape, settings.kl_weight)
    shown = to_unit(pixels[:SHOWN])

    @torch.no_grad()
    def preview(step: int, networks: dict[str, Any]) -> None:
        device = next(vae.parameters()).device
        made = vae.decode(vae.encode(shown.to(device)).latent_dist.mean).sample.cpu()
        write_whole(folder / "samples" / f"step-{step:08d}.png", rows_grid([shown, made]).save)

    state = Loop(objective, own, folder, accelerator, preview).run()["autoencoder"]
    state.swap()
    vae.requires_grad_(False).eval()
    vae.register_to_config(scaling_factor=1.0)
    latents = latents_of(vae, pixels)
    vae.register_to_config(scaling_factor=1 / latents.std().item())
    accelerator.wait_for_everyone()
    return latents * vae.config.scaling_factor


@torch.no_grad()
def latents_of(vae: Any, pixels: Tensor) -> Tensor:
    """Return the latents of images (n, c, h, w) in uint8: posterior means times the scaling factor, in float32."""
    device = next(vae.parameters()).device
    parts = [vae.encode(to_unit(part).to(device)).latent_dist.mean.cpu() for part in pixels.split(ENCODED_AT_ONCE)]
    return torch.cat(parts) * vae.config.scaling_factor
