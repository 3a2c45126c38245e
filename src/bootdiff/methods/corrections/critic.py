"""A discriminator on the teacher's features, whose real images are the teacher's own samples (DMD2, arXiv 2405.14867).

So it is free of data: "real" is what the teacher makes. Source: docs/method.md, "A critic (C6)".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.core.device import device_of
from bootdiff.teachers import Teacher, blank_condition
from bootdiff.teachers.features import TeacherFeatures

#: the width of the critic's hidden layer
WIDTH = 256


class Critic(nn.Module):
    """A small network on the middle of the frozen teacher's, which says whether noisy images are the teacher's.

    Args:
        teacher: whose features it reads.
        condition: of one image, such as the samples will have; None is zeros in a pipeline's shapes.
    """

    def __init__(self, teacher: Teacher, condition: Condition | None = None) -> None:
        super().__init__()
        # Not a part of this module: the features' network does not learn, and is saved with nobody.
        self._features = (TeacherFeatures.of_any(teacher, teacher.t_range[0], condition),)
        device = device_of(teacher)
        x, r = torch.zeros(1, *teacher.shape), torch.full((1,), teacher.t_range[0])
        asked = blank_condition(teacher, 1) if condition is None else condition
        with torch.no_grad():
            middle, _ = self._features[0].shown(x.to(device), r.to(device), asked.to(device))
        channels = middle.shape[-1]
        self.head = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, WIDTH), nn.SiLU(), nn.Linear(WIDTH, 1))

    def forward(self, x_r: Tensor, r: Tensor, condition: Condition) -> Tensor:
        """Return logits (b,) for noisy images (b, *shape) at times r (b,): above zero for the teacher's samples.

        They are means over the positions of the features, each of which has seen the whole image.
        """
        middle, _ = self._features[0].shown(x_r, r, condition)
        logits: Tensor = self.head(middle).mean((1, 2))
        return logits
