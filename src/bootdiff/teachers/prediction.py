"""What a network's output means: from output to ``x_0``, and from ``x_0`` and noise to the output it should give."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from bootdiff.errors import choose


class Prediction(ABC):
    """One prediction type. All tensors are (b, ...) in float32; alpha and sigma broadcast over them."""

    #: the name that diffusers' schedulers give it
    name: str

    @abstractmethod
    def x0(self, out: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The clean image that the output stands for."""

    @abstractmethod
    def output(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The output that a perfect network gives at ``alpha x_0 + sigma eps``."""


class Signal(Prediction):
    """out = x_0: the paper's own teachers."""

    name = "sample"

    def x0(self, out: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The output itself."""
        return out

    def output(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """x_0 itself."""
        return x_0


class Noise(Prediction):
    """out = eps: DDPM, Stable Diffusion, DeepFloyd IF. Undefined at alpha = 0."""

    name = "epsilon"

    def x0(self, out: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """(x_t − sigma out) / alpha."""
        return (x_t - sigma * out) / alpha

    def output(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """eps itself."""
        return eps


class Velocity(Prediction):
    """out = alpha eps − sigma x_0, for variance-preserving schedules (Salimans & Ho, 2022)."""

    name = "v_prediction"

    def x0(self, out: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """alpha x_t − sigma out."""
        return alpha * x_t - sigma * out

    def output(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """alpha eps − sigma x_0."""
        return alpha * eps - sigma * x_0


class FlowVelocity(Prediction):
    """out = eps − x_0, for rectified flow."""

    name = "flow_prediction"

    def x0(self, out: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """x_t − t out, where t = sigma."""
        return x_t - sigma * out

    def output(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """eps − x_0."""
        return eps - x_0


PREDICTIONS: dict[str, Prediction] = {p.name: p for p in (Signal(), Noise(), Velocity(), FlowVelocity())}


def prediction_named(name: str) -> Prediction:
    """The prediction type with diffusers' name.

    Raises:
        BootdiffError: for a name that is none of ``sample``, ``epsilon``, ``v_prediction``, ``flow_prediction``.
    """
    return PREDICTIONS[choose(name, PREDICTIONS, "prediction type")]
