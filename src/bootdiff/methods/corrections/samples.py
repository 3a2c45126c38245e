"""The settings of a correction that may learn from the teacher's own samples beside its fake denoiser.

They are stored pairs of a noise and the sample that the teacher makes of it. A regression on them holds on to which
noise makes which image (DMD, arXiv 2311.18828), and a critic takes them for real (DMD2, arXiv 2405.14867). Both are
free of data. Source: docs/method.md, "A critic (C6)" and "The teacher's samples (C8)".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from bootdiff.config.mixins import STORED, ChosenSource, StoredPairs
from bootdiff.core.errors import BootdiffError
from bootdiff.methods.corrections.settings import CorrectionSettings

#: what a correction reads stored pairs for
READERS = ("pair_weight", "critic_weight")


class SamplesSettings(ChosenSource, StoredPairs, CorrectionSettings):
    """The settings of a correction that may have a regression on the teacher's samples, and a critic."""

    pair_weight: float = Field(
        default=0.0,
        ge=0,
        le=1e6,
        description="of a regression on stored samples of the teacher, in the place of BOOT's loss or beside it; "
        "0 = none",
    )
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
        """Take pairs where the teacher's samples are needed and no source is asked for."""
        if not isinstance(values, Mapping) or values.get("source") is not None:
            return values
        return {**values, "source": "pairs"} if any(values.get(name) for name in READERS) else values

    @model_validator(mode="after")
    def _has_samples(self) -> Self:
        if self.source is not None:
            self.check_source(self.source)
        usual = type(self).model_fields["critic_learning_rate"].default
        if not self.critic_weight and self.critic_learning_rate != usual:
            raise BootdiffError("critic_learning_rate is a critic's, and critic_weight is 0; give it a weight.")
        return self

    def check_source(self, kind: str) -> None:
        """Refuse noise where samples of the teacher are needed, and pairs that nobody reads."""
        reader = next((name for name in READERS if getattr(self, name)), None)
        if reader and kind == "noise":
            raise BootdiffError(f"{reader} needs samples of the teacher; take pairs as the source, or leave it out.")
        if not reader and kind == "pairs":
            raise BootdiffError(
                "a correction reads stored pairs for pair_weight and critic_weight alone, and both are 0; give one of "
                "them a weight, or leave the source out."
            )

    @property
    def _stores(self) -> bool:
        return self.source in STORED  # noise where none is named

    @property
    def differentiates_teacher(self) -> bool:
        """Whether gradients pass through the teacher: with a critic they do."""
        return super().differentiates_teacher or self.critic_weight > 0

    @property
    def reads_features(self) -> bool:
        """Whether the teacher's features are read: a critic reads them."""
        return self.critic_weight > 0
