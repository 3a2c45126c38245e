"""An autoencoder that changes nothing, for a stock pipeline that wants one around a network of pixels.

No autoencoder of diffusers can be left out of a DiTPipeline, and none does nothing. But the weights of an
AutoencoderKL can be chosen so that it answers with what it is given:

- its residual blocks and attention add nothing, since their last layers are zero;
- before the last group normalisation every channel x stands beside −x, and two constants L and −L beside them all: so
  the mean is 0, and the deviation that of the constants, up to a relative mean(x²) / L²;
- SiLU(u) − SiLU(−u) = u, so the last convolution takes the difference of each pair.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

#: L, beside which values of about 1 change a deviation by a part in a million
CONSTANT = 1024.0
#: the logarithm of the variance of what its encoder answers: none
NO_VARIANCE = -30.0


@torch.no_grad()
def identity_autoencoder(channels: int) -> Any:
    """Return an AutoencoderKL for images (b, channels, h, w) that answers with its input to about 1e-6."""
    from diffusers import AutoencoderKL

    width = 2 * channels + 2
    with torch.random.fork_rng(devices=[]):
        made: Any = AutoencoderKL(
            in_channels=channels,
            out_channels=channels,
            latent_channels=channels,
            block_out_channels=(width,),
            norm_num_groups=1,
            mid_block_add_attention=False,
            use_quant_conv=False,
            use_post_quant_conv=False,
            scaling_factor=1.0,
        )
    for name, value in made.named_parameters():
        if "norm" in name and name.endswith("weight"):
            value.fill_(1.0)
        else:
            value.zero_()
    for half in (made.encoder, made.decoder):
        _pair(half.conv_in, channels)
        _unpair(half, channels, width)
    made.encoder.conv_out.bias[channels:] = NO_VARIANCE
    return made.requires_grad_(False).eval()


def _pair(layer: nn.Conv2d, channels: int) -> None:
    """Make a convolution answer x, −x, L and −L."""
    bias: Tensor = layer.bias  # type: ignore[assignment]
    for channel in range(channels):
        layer.weight[channel, channel, 1, 1] = 1.0
        layer.weight[channels + channel, channel, 1, 1] = -1.0
    bias[-2], bias[-1] = CONSTANT, -CONSTANT


def _unpair(half: Any, channels: int, width: int) -> None:
    """Make a half's last normalisation divide by less than it does, and its last convolution take differences."""
    # Of `width` channels two are ±L, so that the deviation is L √(2 / width).
    deviation = CONSTANT * (2 / width) ** 0.5
    for channel in range(channels):
        half.conv_out.weight[channel, channel, 1, 1] = deviation
        half.conv_out.weight[channel, channels + channel, 1, 1] = -deviation
