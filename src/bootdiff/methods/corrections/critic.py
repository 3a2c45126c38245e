"""A discriminator on the teacher's features, whose real images are the teacher's own samples (DMD2, arXiv 2405.14867).

So it is free of data: "real" is what the teacher makes. Source: docs/method.md, "A critic (C6)".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from bootdiff.config.mixins import ChosenSource, StoredPairs
from bootdiff.core.condition import Condition
from bootdiff.core.device import device_of
from bootdiff.core.errors import BootdiffError
from bootdiff.methods.corrections.settings import CorrectionSettings
from bootdiff.teachers import Teacher, blank_condition
from bootdiff.teachers.features import TeacherFeatures

#: the width of the critic's hidden layer
WIDTH = 256


class CriticSettings(ChosenSource, StoredPairs, CorrectionSettings):
    """The settings of a correction that may have a critic beside its fake denoiser."""

    critic_weight: float = Field(
        default=0.0,
        ge=0,
        le=1e6,
        description="of a discriminator's loss, which tells the student's images from stored samples of the teacher; "
        "0 = none",
    )
    critic_learning_rate: float = Field(default=1e-3, gt=0, le=1, description="AdamW's rate of the discriminator")

    @model_validator(mode="before")
    @classmethod
    def _learns_from_pairs(cls, values: Any) -> Any:
        """Take pairs where a critic needs the teacher's samples and no source is asked for."""
        if not isinstance(values, Mapping) or not values.get("critic_weight") or values.get("source") is not None:
            return values
        return {**values, "source": "pairs"}

    @model_validator(mode="after")
    def _has_samples(self) -> CriticSettings:
        if self.critic_weight and self.source == "noise":
            raise BootdiffError(
                "critic_weight needs samples of the teacher; leave --source out, or say --source pairs."
            )
        if not self.critic_weight and self.source == "pairs":
            raise BootdiffError(
                "a correction reads stored pairs for its critic alone, and critic_weight is 0; give it a weight, or "
                "leave --source out."
            )
        usual = type(self).model_fields["critic_learning_rate"].default
        if not self.critic_weight and self.critic_learning_rate != usual:
            raise BootdiffError("critic_learning_rate is a critic's, and critic_weight is 0; give it a weight.")
        return self

    @property
    def differentiates_teacher(self) -> bool:
        """Whether gradients pass through the teacher: with a critic they do."""
        return super().differentiates_teacher or self.critic_weight > 0

    @property
    def reads_features(self) -> bool:
        """Whether the teacher's features are read: a critic reads them."""
        return self.critic_weight > 0


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
