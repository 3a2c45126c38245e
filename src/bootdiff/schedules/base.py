"""What a noise schedule is: ``x_t = alpha_t x_0 + sigma_t eps``, t in [0, 1], t = 0 clean."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from bootdiff.errors import BootdiffError


def expand(value: Tensor, like: Tensor) -> Tensor:
    """Shape per-sample values (b,) so that they broadcast over ``like`` (b, ...)."""
    return value.reshape(-1, *([1] * (like.ndim - 1)))


class Schedule(ABC):
    """alpha_t, sigma_t and lambda_t = log(sigma_t / alpha_t), the negative half log-SNR, for t in [0, 1].

    All times are tensors of shape (b,). Maths runs in float64 and is handed out in float32: bfloat16 would round
    sigma 0.9977 to 0.9961, and digits cancel in ``lambda_s − lambda_t``.
    """

    #: the number of steps N of the network's table: its time input is ``t · (N − 1)``
    num_timesteps: int = 1000

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
        """What the network's time input gets: ``t · (N − 1)`` as a real number, float32, (b,)."""
        return (_float64(t) * (self.num_timesteps - 1)).to(t.device, torch.float32)

    def time(self, timestep: Tensor | float) -> Tensor:
        """The inverse of ``timestep``: t in [0, 1], float32."""
        return (torch.as_tensor(timestep, dtype=torch.float64) / (self.num_timesteps - 1)).float()


class VariancePreserving(Schedule):
    """alpha² + sigma² = 1, as in DDPM and in every teacher of the paper."""

    def split(self, lambda_t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha² = sigmoid(−2 lambda), sigma² = sigmoid(2 lambda)."""
        return torch.sigmoid(-2 * lambda_t).sqrt(), torch.sigmoid(2 * lambda_t).sqrt()


def exportable_time(schedule: Schedule, t: float) -> float:
    """The time next to ``t`` whose 1 − alpha² is a float32 number, which is all that a beta in a scheduler can hold.

    Without this, an exported noise-prediction student with alpha 0.02 would be off by 4e-5 of its range. Other than
    variance-preserving schedules have no betas: ``t`` is returned as it is.
    """
    here = schedule.lambda_(torch.tensor([t], dtype=torch.float64))
    if not isinstance(schedule, VariancePreserving) or not bool(torch.isfinite(here)):
        return t
    alpha, _ = schedule.split(here)
    beta = (1 - alpha**2).float().double()
    wanted = 0.5 * (torch.log(beta) - torch.log1p(-beta))
    low, high = max(0.0, t - 1e-3), min(1.0, t + 1e-3)
    for _ in range(60):
        middle = (low + high) / 2
        below = bool(schedule.lambda_(torch.tensor([middle], dtype=torch.float64)) < wanted)
        low, high = (middle, high) if below else (low, middle)
    return low


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
