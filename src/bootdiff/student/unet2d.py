"""Growing and folding diffusers' unconditional UNet2DModel."""

from __future__ import annotations

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
    def from_teacher(cls, teacher: nn.Module) -> GrownUNet2D:
        """Copy the teacher's weights and zero the new embedding's last layer: initially equal to the teacher."""
        # The override must be a keyword argument: inside the config it would be ignored without a word.
        network = UNet2DModel.from_config(teacher.config, class_embed_type="timestep")
        network.load_state_dict(teacher.state_dict(), strict=False)
        nn.init.zeros_(network.class_embedding.linear_2.weight)
        nn.init.zeros_(network.class_embedding.linear_2.bias)
        return cls(network)

    def forward(self, x_T: Tensor, timestep: Tensor, target: Tensor, condition: Condition) -> Tensor:
        """The network's output, (b, c, h, w)."""
        return self.network(x_T, timestep, class_labels=target).sample

    @torch.no_grad()
    def fold(self, timestep: float, target: float) -> UNet2DModel:
        """Both times moved into the biases of the time embedding."""
        grown = self.network
        folded = UNet2DModel.from_config(grown.config, class_embed_type=None)
        folded.load_state_dict(grown.state_dict(), strict=False)
        device = grown.time_embedding.linear_1.weight.device
        folded = folded.to(device)
        times = torch.tensor([timestep, target], dtype=torch.float32, device=device)
        own, wanted = grown.time_proj(times)[:, None]
        embedding = folded.time_embedding
        embedding.linear_1.bias += embedding.linear_1.weight @ own[0]
        # The own time is always t_max: with it in the bias, the timestep that a pipeline passes no longer matters.
        embedding.linear_1.weight.zero_()
        embedding.linear_2.bias += grown.class_embedding(wanted)[0]
        return folded.eval()


register_growth(UNet2DModel, GrownUNet2D.from_teacher)
