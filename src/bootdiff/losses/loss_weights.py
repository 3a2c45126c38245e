"""Loss weights of the bootstrap term, as per-sample factors of the distance between ``y_s`` and its target.

With ``r = (y_s − target) / kappa`` every weight below is a function of ``d(y_s, target) = kappa^p d(r, 0)``, where p is
the distance's degree (2 for squared error), so that any distance can be weighted.

Source: docs/method.md, "Loss weights".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Weight(Protocol):
    """A factor for each sample's distance, (b,), through which no gradient flows."""

    #: whether the factor grows without bound as s is clipped to t_min, so that t must stay delta above it
    singular: bool

    def __call__(self, distance: Tensor, kappa: Tensor, t: Tensor, degree: int) -> Tensor: ...


@dataclass(frozen=True)
class UniformWeight:
    """The paper's default, 1 / delta² with the nominal delta (Eq. 14).

    The constant is dropped, so the factor is 1 and the loss is plain regression.
    """

    singular = False

    def __call__(self, distance: Tensor, kappa: Tensor, t: Tensor, degree: int) -> Tensor:
        return torch.ones_like(kappa)


@dataclass(frozen=True)
class SignalWeight:
    """A weight of 1 / kappa² for squared error, so that the loss is ‖r‖².

    It is what Algorithm 1 and the paper's text-to-image runs use.
    """

    singular = True

    def __call__(self, distance: Tensor, kappa: Tensor, t: Tensor, degree: int) -> Tensor:
        return kappa**-degree


@dataclass(frozen=True)
class AdaptiveWeight:
    """FreeFlow's weight up to a factor 1/t²: kappa ‖r‖² · SG[(‖r/t‖²/d + c)^−k]."""

    power: float = 1.0
    floor: float = 1e-3
    singular = True

    def __call__(self, distance: Tensor, kappa: Tensor, t: Tensor, degree: int) -> Tensor:
        residual = distance * kappa**-degree
        return kappa ** (1 - degree) * (residual / t.clamp(min=1e-3) ** degree + self.floor) ** -self.power


WEIGHTS: dict[str, Weight] = {"uniform": UniformWeight(), "signal": SignalWeight(), "adaptive": AdaptiveWeight()}
