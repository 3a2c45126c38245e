"""What a network's output means: from output to ``x_0``, and from ``x_0`` and noise to the output it should give.

Every kind is linear in the noisy image and the output, ``x_0 = a x_t + b out``; a kind is its two factors.

Source: docs/method.md, "The teacher as a denoiser".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from bootdiff.core.errors import choose


class Prediction(ABC):
    """One prediction type. Images are (b, ...) in float32; alpha and sigma have shapes that broadcast over them."""

    #: the name that diffusers' schedulers give it
    name: str

    @abstractmethod
    def factors(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return (a, b) of ``x_0 = a x_t + b out``."""

    @abstractmethod
    def output(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the output (b, ...) that a perfect network gives at ``alpha x_0 + sigma eps``."""

    def x0(self, out: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the clean image (b, ...) that the output stands for."""
        a, b = self.factors(alpha, sigma)
        return a * x_t + b * out

    def input_scale(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the factor of what the network sees, ``input_scale · x_t``."""
        return torch.ones_like(sigma)


class Signal(Prediction):
    """The prediction type of the paper's own teachers, whose network's output is x_0."""

    name = "sample"

    def factors(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return (a, b) of x_0 = out."""
        return torch.zeros_like(alpha), torch.ones_like(alpha)

    def output(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return what the network is trained to answer: x_0, (b, *shape)."""
        return x_0


class Noise(Prediction):
    """The prediction type of DDPM, Stable Diffusion and DeepFloyd IF, whose network's output is eps.

    It is undefined at alpha = 0.
    """

    name = "epsilon"

    def factors(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return (a, b) of x_0 = (x_t − sigma out) / alpha."""
        return 1 / alpha, -sigma / alpha

    def output(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return what the network is trained to answer: eps, (b, *shape)."""
        return eps


class Velocity(Prediction):
    """The prediction type out = alpha eps − sigma x_0, for variance-preserving schedules (Salimans & Ho, 2022)."""

    name = "v_prediction"

    def factors(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return (a, b) of x_0 = alpha x_t − sigma out."""
        return alpha, -sigma

    def output(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the velocity alpha eps − sigma x_0."""
        return alpha * eps - sigma * x_0


class FlowVelocity(Prediction):
    """The prediction type out = eps − x_0, for rectified flow."""

    name = "flow_prediction"

    def factors(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return (a, b) of x_0 = x_t − t out, where t = sigma."""
        return torch.ones_like(alpha), -sigma

    def output(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the velocity eps − x_0."""
        return eps - x_0


class Score(Prediction):
    """The prediction type out = −eps / sigma of score models, the gradient of log p_t(x_t) (Song et al., 2021)."""

    name = "score"

    def factors(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return (a, b) of x_0 = (x_t + sigma² out) / alpha."""
        return 1 / alpha, sigma**2 / alpha

    def output(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the score −eps / sigma."""
        return -eps / sigma


@dataclass(frozen=True)
class Preconditioned(Prediction):
    """The prediction type of EDM's preconditioning (Karras et al., 2022, Table 1), for alpha = 1.

    Args:
        sigma_data: the data's standard deviation that the network was trained for.
        sign: +1 for diffusers' ``epsilon``, −1 for its ``v_prediction``.
    """

    sigma_data: float = 0.5
    sign: float = 1.0
    name = "edm"

    def factors(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return (a, b), which are EDM's c_skip and c_out."""
        spread = sigma**2 + self.sigma_data**2
        return self.sigma_data**2 / spread, self.sign * sigma * self.sigma_data / spread.sqrt()

    def output(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return (x_0 − c_skip x_t) / c_out."""
        skip, out = self.factors(alpha, sigma)
        return (x_0 - skip * (x_0 + sigma * eps)) / out

    def input_scale(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the factor of what the network sees, which is EDM's c_in."""
        return 1 / (sigma**2 + self.sigma_data**2).sqrt()


PREDICTIONS: dict[str, Prediction] = {
    p.name: p for p in (Signal(), Noise(), Velocity(), FlowVelocity(), Score(), Preconditioned())
}


def prediction_named(name: str) -> Prediction:
    """Return the prediction type with diffusers' name; ``edm`` is that with sigma_data = 0.5.

    Raises:
        BootdiffError: for a name that is none of them.
    """
    return PREDICTIONS[choose(name, PREDICTIONS, "prediction type")]
