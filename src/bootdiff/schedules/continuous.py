"""Schedules given by a formula."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bootdiff.core.errors import BootdiffError
from bootdiff.schedules.base import Schedule, VariancePreserving


class Cosine(VariancePreserving):
    """The cosine schedule of the paper's teachers: alpha_t = cos(pi t / 2), sigma_t = sin(pi t / 2).

    Source: Nichol & Dhariwal, 2021.
    """

    def log_sigma_over_alpha(self, t: Tensor) -> Tensor:
        """Return lambda_t = log tan(pi t / 2)."""
        return torch.log(torch.tan(t * (math.pi / 2)))


class Linear(VariancePreserving):
    """The continuous form of DDPM's linear betas: log alpha_t = −(b − a) t² / 4 − a t / 2, a = 0.1, b = 20."""

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        self.beta_min, self.beta_max = beta_min, beta_max

    def log_sigma_over_alpha(self, t: Tensor) -> Tensor:
        """Return lambda_t = log(sqrt(1 − alpha²) / alpha)."""
        log_alpha = -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min
        return 0.5 * torch.log(-torch.expm1(2 * log_alpha)) - log_alpha


class RectifiedFlow(Schedule):
    """The schedule of rectified flow: alpha_t = 1 − sigma_t, sigma_t = shift · t / (1 + (shift − 1) t).

    Without a shift, which is a shift of 1, sigma_t = t. The shift for large images (Esser et al., 2024, Eq. 23) adds
    log(shift) to lambda. The network is told sigma · N.

    Raises:
        BootdiffError: unless the shift is positive.
    """

    def __init__(self, shift: float = 1.0, num_timesteps: int = 1000) -> None:
        if not 0 < shift < math.inf:
            raise BootdiffError(f"expected a shift above 0, got {shift:g}.")
        self.shift, self.num_timesteps = shift, num_timesteps

    def log_sigma_over_alpha(self, t: Tensor) -> Tensor:
        """Return lambda_t = log(shift) + log(t / (1 − t))."""
        return math.log(self.shift) + torch.log(t) - torch.log1p(-t)

    def split(self, lambda_t: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha = 1 − sigma and sigma = sigmoid(lambda), each (b,) in float64."""
        return torch.sigmoid(-lambda_t), torch.sigmoid(lambda_t)

    def _to_timestep(self, t: Tensor) -> Tensor:
        return torch.sigmoid(self.log_sigma_over_alpha(t)) * self.num_timesteps

    def _from_timestep(self, timestep: Tensor) -> Tensor:
        return torch.sigmoid(torch.logit(timestep / self.num_timesteps) - math.log(self.shift))


class VarianceExploding(Schedule):
    """A schedule with alpha_t = 1 and sigma_t from ``sigma_min`` to ``sigma_max``, geometric in t.

    Sampling from time t starts at sigma_t · eps.

    Raises:
        BootdiffError: unless 0 < sigma_min < sigma_max.
    """

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0, num_timesteps: int = 1000) -> None:
        if not 0 < sigma_min < sigma_max < math.inf:
            raise BootdiffError(f"expected 0 < sigma_min < sigma_max, got {sigma_min:g} and {sigma_max:g}.")
        self.sigma_min, self.sigma_max, self.num_timesteps = sigma_min, sigma_max, num_timesteps

    def log_sigma_over_alpha(self, t: Tensor) -> Tensor:
        """Return lambda_t = log sigma_t."""
        return math.log(self.sigma_min) + t * math.log(self.sigma_max / self.sigma_min)

    def start_scale(self, t_max: float) -> float:
        """Return nu, which is sigma at t_max."""
        return float(self.lambda_(torch.tensor([t_max], dtype=torch.float64)).exp())

    def split(self, lambda_t: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha = 1 and sigma = exp(lambda), each (b,) in float64."""
        return torch.ones_like(lambda_t), torch.exp(lambda_t)


class SigmaTime(VarianceExploding):
    """A variance-exploding schedule for a network whose time input is sigma (score models: Song et al., 2021)."""

    def _to_timestep(self, t: Tensor) -> Tensor:
        return self.log_sigma_over_alpha(t).exp()

    def _from_timestep(self, timestep: Tensor) -> Tensor:
        return torch.log(timestep / self.sigma_min) / math.log(self.sigma_max / self.sigma_min)


class EDM(VarianceExploding):
    """EDM's schedule: alpha_t = 1, and sigma_t^(1/rho) is linear in t (Karras et al., 2022, Eq. 5).

    The network is told log(sigma) / 4.

    Args:
        rho: the exponent; with None sigma_t is geometric in t.
    """

    def __init__(
        self,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        rho: float | None = 7.0,
        num_timesteps: int = 1000,
    ) -> None:
        super().__init__(sigma_min, sigma_max, num_timesteps)
        self.rho = rho

    def log_sigma_over_alpha(self, t: Tensor) -> Tensor:
        """Return lambda_t = log sigma_t."""
        if self.rho is None:
            return super().log_sigma_over_alpha(t)
        low, high = self._ends(self.rho)
        return self.rho * torch.log(low + t * (high - low))

    def _to_timestep(self, t: Tensor) -> Tensor:
        return self.log_sigma_over_alpha(t) / 4

    def _from_timestep(self, timestep: Tensor) -> Tensor:
        if self.rho is None:
            return (4 * timestep - math.log(self.sigma_min)) / math.log(self.sigma_max / self.sigma_min)
        low, high = self._ends(self.rho)
        return ((4 * timestep / self.rho).exp() - low) / (high - low)

    def _ends(self, rho: float) -> tuple[float, float]:
        return self.sigma_min ** (1 / rho), self.sigma_max ** (1 / rho)
