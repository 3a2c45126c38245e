"""Growing and folding diffusers' unconditional UNet2DModel."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from bootdiff.condition import Condition
from bootdiff.student.growth import GrownNetwork, register_growth


class GrownUNet2D(GrownNetwork):
    """A UNet2DModel whose class-embedding slot holds the target time, added to the time embedding."""

    def __init__(self, network: UNet2DModel) -> None:
        super().__init__()
        self.network = network

    @classmethod
    def from_teacher(cls, teacher: Any) -> GrownUNet2D:
        """Copy the teacher's weights and zero the new embedding's last layer: initially equal to the teacher.

        Where the teacher predicts a variance as well, those channels are left out.
        """
        channels = teacher.config.in_channels
        # The overrides must be keyword arguments: inside the config they would be ignored without a word.
        network = UNet2DModel.from_config(teacher.config, class_embed_type="timestep", out_channels=channels)
        weights = teacher.state_dict()
        for name in ("conv_out.weight", "conv_out.bias"):
            weights[name] = weights[name][:channels]
        network.load_state_dict(weights, strict=False)
        nn.init.zeros_(network.class_embedding.linear_2.weight)
        nn.init.zeros_(network.class_embedding.linear_2.bias)
        return cls(network)

    def forward(self, x_T: Tensor, timestep: Tensor, target: Tensor, condition: Condition) -> Tensor:
        """The network's output, (b, c, h, w)."""
        return self.network(x_T, timestep, class_labels=target).sample

    @torch.no_grad()
    def fold(self, timestep: float, target: float) -> UNet2DModel:
        """Both times moved into the biases of the time embedding; it may then be told any timestep."""
        grown = self.network
        folded = UNet2DModel.from_config(grown.config, class_embed_type=None)
        folded.load_state_dict(grown.state_dict(), strict=False)
        embedding = grown.time_embedding
        times = torch.tensor([timestep, target], device=embedding.linear_1.weight.device)
        own, wanted = grown.time_proj(times)[:, None]
        folded = folded.to(times.device)
        # The own time is always t_max: with it in the bias, the timestep that a pipeline passes no longer matters.
        folded.time_embedding.linear_1.weight.zero_()
        folded.time_embedding.linear_1.bias += embedding.linear_1.weight @ own[0]
        folded.time_embedding.linear_2.bias += grown.class_embedding(wanted)[0]
        return folded.eval()


@torch.no_grad()
def rescale(network: UNet2DModel, input_scale: float, output_scale: float) -> None:
    """Change the weights so that the network gives ``output_scale · network(input_scale · x)``.

    Raises:
        ValueError: if the network shifts its input (``center_input_sample``), which no weight can undo.
    """
    if input_scale != 1 and network.config.center_input_sample:
        raise ValueError("center_input_sample shifts the input; it cannot be scaled")
    for layer in (network.conv_in, *_skips(network.down_blocks)):
        layer.weight *= input_scale
    for layer in (network.conv_out, *_skips(network.up_blocks)):
        layer.weight *= output_scale
        layer.bias *= output_scale


def _skips(blocks: Any) -> list[nn.Conv2d]:
    """The layers of NCSN++ by which blocks read the input, or add to the output, past all others."""
    return [block.skip_conv for block in blocks if getattr(block, "skip_conv", None) is not None]


register_growth(UNet2DModel, GrownUNet2D.from_teacher)
