"""Score identity distillation: as distribution matching, with gradients through both denoisers (arXiv 2404.04057).

Source: docs/method.md, "Score identity distillation (C2)".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Field
from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.methods.base import Networks
from bootdiff.methods.corrections.base import Correction, per_sample
from bootdiff.methods.corrections.samples import SamplesSettings
from bootdiff.methods.method import ANY, method


class SidSettings(SamplesSettings):
    """The settings of score identity distillation: dm's, and its own."""

    sid_alpha: float = Field(default=1.0, ge=0, le=2, description="a of the loss; SiD has 1 to 1.2")

    @property
    def own(self) -> dict[str, Any]:
        """Return a of the loss, by the objective's field."""
        return {"alpha": self.sid_alpha}

    @property
    def differentiates_teacher(self) -> bool:
        """Whether gradients pass through the teacher: here they do."""
        return True


@method("sid", SidSettings, sources=("noise", "pairs"), student=ANY)
@dataclass
class Sid(Correction):
    """The objective of score identity distillation.

    Its loss is (f − f_psi) · [(f − x) − a (f − f_psi)] / mean |x − f|, with gradients through f and f_psi, too.
    """

    alpha: float = 1.0

    def compare(
        self, networks: Networks, x: Tensor, x_r: Tensor, r: Tensor, condition: Condition
    ) -> tuple[Tensor, Tensor]:
        """Return the loss as it stands, and the denoisers' mean squared difference, (b,).

        Neither f nor f_psi is detached in the loss.
        """
        f, f_psi = self.answers(networks, x_r, r, condition)
        difference = f - f_psi
        loss = difference * ((f - x) - self.alpha * difference) / per_sample(x - f, x)
        return loss.mean(), difference.detach().square().flatten(1).mean(1)
