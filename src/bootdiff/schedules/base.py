"""What a noise schedule is: ``x_t = alpha_t x_0 + sigma_t eps``, t in [0, 1], t = 0 clean.

Source: docs/method.md, "Conventions".
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from bootdiff.core.errors import BootdiffError


def expand(value: Tensor, like: Tensor) -> Tensor:
    """Shape per-sample values (b,) so that they broadcast over ``like`` (b, ...)."""
    return value.reshape(-1, *([1] * (like.ndim - 1)))


class Schedule(ABC):
    """alpha_t, sigma_t and lambda_t = log(sigma_t / alpha_t), the negative half log-SNR, for t in [0, 1].

    All times are tensors of shape (b,). Maths runs in float64 and is handed out in float32: bfloat16 would round
    sigma 0.9977 to 0.9961, and digits cancel in ``lambda_s − lambda_t``.

    What the network's own time input gets is the schedule's to say (``timestep``): ``t · (N − 1)`` here.
    """

    #: the number of steps N of the network's table
    num_timesteps: int = 1000
    #: whether the network's time input takes integers only; timesteps are then rounded to the nearest
    integer_timesteps: bool = False

    @abstractmethod
    def log_sigma_over_alpha(self, t: Tensor) -> Tensor:
        """lambda_t for float64 times, in float64; it grows with t."""

    @abstractmethod
    def split(self, lambda_t: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha_t, sigma_t) from lambda_t, in float64: variance-preserving, variance-exploding or flow."""

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha_t, sigma_t) in float32, each (b,)."""
        alpha, sigma = self.split(self.log_sigma_over_alpha(_float64(t)))
        return alpha.to(t.device, torch.float32), sigma.to(t.device, torch.float32)

    def lambda_(self, t: Tensor) -> Tensor:
        """lambda_t in float64, (b,)."""
        return self.log_sigma_over_alpha(_float64(t))

    def kappa(self, t: Tensor, s: Tensor) -> Tensor:
        """kappa = 1 − exp(lambda_s − lambda_t) for s ≤ t, the step of Eq. 5, in float32 and [0, 1]."""
        difference = self.lambda_(s) - self.lambda_(t)
        return -torch.expm1(difference).to(t.device, torch.float32)

    def start_scale(self, t_max: float) -> float:
        """nu: sampling from t_max starts at ``x_T = nu · eps``."""
        return 1.0

    def timestep(self, t: Tensor) -> Tensor:
        """What the network's time input gets, (b,): float32, or int64 and rounded where it takes integers only."""
        steps = self._to_timestep(_float64(t))
        return steps.round().long().to(t.device) if self.integer_timesteps else steps.to(t.device, torch.float32)

    def time(self, timestep: Tensor | float) -> Tensor:
        """The inverse of ``timestep``: t in [0, 1], float32."""
        return self._from_timestep(torch.as_tensor(timestep, dtype=torch.float64)).float()

    def with_integer_timesteps(self) -> Schedule:
        """This schedule, for a network whose time input is a table of N entries."""
        rounded = copy.copy(self)
        rounded.integer_timesteps = True
        return rounded

    def _to_timestep(self, t: Tensor) -> Tensor:
        return t * (self.num_timesteps - 1)

    def _from_timestep(self, timestep: Tensor) -> Tensor:
        return timestep / (self.num_timesteps - 1)


class VariancePreserving(Schedule):
    """alpha² + sigma² = 1, as in DDPM and in every teacher of the paper."""

    def split(self, lambda_t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha² = sigmoid(−2 lambda), sigma² = sigmoid(2 lambda)."""
        return torch.sigmoid(-2 * lambda_t).sqrt(), torch.sigmoid(2 * lambda_t).sqrt()


def check_times(t_min: float, t_max: float) -> None:
    """Refuse a time range that is not 0 ≤ t_min < t_max ≤ 1.

    Raises:
        BootdiffError: naming the values met.
    """
    if not 0 <= t_min < t_max <= 1:
        raise BootdiffError(f"expected 0 ≤ t_min < t_max ≤ 1, got t_min = {t_min:g} and t_max = {t_max:g}; change one.")


def _float64(t: Tensor) -> Tensor:
    # Apple's GPUs have no float64: the few values of a schedule are worth a trip to the CPU.
    return t.to("cpu", torch.float64) if t.device.type == "mps" else t.double()
