"""What a noise schedule is: ``x_t = alpha_t x_0 + sigma_t eps``, t in [0, 1], t = 0 clean.

Source: docs/method.md, "Conventions".
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from bootdiff.core.errors import BootdiffError
from bootdiff.core.forward_mode import with_derivative


def expand(value: Tensor, like: Tensor) -> Tensor:
    """Return per-sample values (b,) in a shape that broadcasts over ``like`` (b, ...)."""
    return value.reshape(-1, *([1] * (like.ndim - 1)))


class Schedule(ABC):
    """A noise schedule: alpha_t, sigma_t and lambda_t = log(sigma_t / alpha_t) for t in [0, 1].

    The paper calls lambda_t the negative half log-SNR.

    All times are tensors of shape (b,). Values are computed in float64 and handed out in float32: bfloat16 would round
    sigma 0.9977 to 0.9961, and digits cancel in ``lambda_s − lambda_t``.

    The schedule also says what the network's own time input gets (``timestep``): it is ``t · (N − 1)`` by default.
    """

    #: the number of steps N of the network's table
    num_timesteps: int = 1000
    #: whether the network's time input takes integers only; timesteps are then rounded to the nearest
    integer_timesteps: bool = False

    @abstractmethod
    def log_sigma_over_alpha(self, t: Tensor) -> Tensor:
        """Return lambda_t for times in float64, (b,) in float64; it grows with t."""

    @abstractmethod
    def split(self, lambda_t: Tensor) -> tuple[Tensor, Tensor]:
        """Return (alpha_t, sigma_t) for lambda_t, each (b,) in float64.

        This is what tells variance-preserving, variance-exploding and flow schedules apart.
        """

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return (alpha_t, sigma_t) in float32, each (b,)."""
        alpha, sigma = self.split(self.log_sigma_over_alpha(_float64(t)))
        return alpha.to(t.device, torch.float32), sigma.to(t.device, torch.float32)

    def lambda_(self, t: Tensor) -> Tensor:
        """Return lambda_t in float64, (b,)."""
        return self.log_sigma_over_alpha(_float64(t))

    def kappa(self, t: Tensor, s: Tensor) -> Tensor:
        """Return kappa = 1 − exp(lambda_s − lambda_t) for s ≤ t, the step of Eq. 5, (b,) in float32 and in [0, 1]."""
        difference = self.lambda_(s) - self.lambda_(t)
        return -torch.expm1(difference).to(t.device, torch.float32)

    def slope(self, t: Tensor) -> Tensor:
        """Return lambda'_t, the derivative by t, (b,) in float32; it is not finite where alpha_t or sigma_t is 0."""
        with torch.no_grad():
            return with_derivative(self.lambda_, t)[1].to(t.device, torch.float32)

    def start_scale(self, t_max: float) -> float:
        """Return the factor nu of the noise with which sampling from t_max starts: ``x_T = nu · eps``."""
        return 1.0

    def timestep(self, t: Tensor) -> Tensor:
        """Return what the network's time input gets, (b,): float32, or rounded int64 where it takes integers only."""
        steps = self._to_timestep(_float64(t))
        return steps.round().long().to(t.device) if self.integer_timesteps else steps.to(t.device, torch.float32)

    def time(self, timestep: Tensor | float) -> Tensor:
        """Return the time t in [0, 1] whose ``timestep`` this is, in float32."""
        return self._from_timestep(torch.as_tensor(timestep, dtype=torch.float64)).float()

    def with_integer_timesteps(self) -> Schedule:
        """Return this schedule for a network whose time input is a table of N entries."""
        rounded = copy.copy(self)
        rounded.integer_timesteps = True
        return rounded

    def _to_timestep(self, t: Tensor) -> Tensor:
        return t * (self.num_timesteps - 1)

    def _from_timestep(self, timestep: Tensor) -> Tensor:
        return timestep / (self.num_timesteps - 1)


class VariancePreserving(Schedule):
    """A schedule with alpha² + sigma² = 1, as in DDPM and in every teacher of the paper."""

    def split(self, lambda_t: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha = sqrt(sigmoid(−2 lambda)) and sigma = sqrt(sigmoid(2 lambda)), each (b,) in float64."""
        return torch.sigmoid(-2 * lambda_t).sqrt(), torch.sigmoid(2 * lambda_t).sqrt()


def check_times(t_min: float, t_max: float) -> None:
    """Refuse a time range that is not 0 ≤ t_min < t_max ≤ 1.

    Raises:
        BootdiffError: if the range is another; the message names both times.
    """
    if not 0 <= t_min < t_max <= 1:
        raise BootdiffError(f"expected 0 ≤ t_min < t_max ≤ 1, got t_min = {t_min:g} and t_max = {t_max:g}; change one.")


def _float64(t: Tensor) -> Tensor:
    # Apple's GPUs have no float64: the few values of a schedule are worth a trip to the CPU.
    return t.to("cpu", torch.float64) if t.device.type == "mps" else t.double()
