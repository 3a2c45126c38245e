"""Distribution matching: the student goes where a denoiser of its own samples and the teacher disagree (2311.18828).

Yin et al., arXiv 2311.18828; Luo et al., arXiv 2305.18455.

Source: docs/method.md, "Distribution matching (C1)".
"""

from __future__ import annotations

import torch
from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.methods.base import Networks
from bootdiff.methods.corrections.base import Correction, per_sample
from bootdiff.methods.corrections.samples import SamplesSettings
from bootdiff.methods.method import ANY, method


class DistributionMatchingSettings(SamplesSettings):
    """The settings of distribution matching: every correction's, and what is learned from the teacher's samples."""


@method("dm", DistributionMatchingSettings, sources=("noise", "pairs"), student=ANY)
class DistributionMatching(Correction):
    """The objective of distribution matching.

    Its gradient is E [ (f_psi(x_r, r) − f(x_r, r)) / mean |x − f(x_r, r)| · dx/dtheta ].
    """

    def compare(
        self, networks: Networks, x: Tensor, x_r: Tensor, r: Tensor, condition: Condition
    ) -> tuple[Tensor, Tensor]:
        """Return a scalar with the correction's gradient, and the denoisers' mean squared difference, (b,).

        The gradient with respect to x is (f_psi − f) / mean |x − f|, divided by the number of values.
        """
        with torch.no_grad():
            f, f_psi = self.answers(networks, x_r, r, condition)
            direction = (f_psi - f) / per_sample(x - f, x)
        return (direction * x).mean(), (f_psi - f).square().flatten(1).mean(1)
