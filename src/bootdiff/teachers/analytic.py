"""Teachers with a closed form, against which every method is tested.

Source: docs/method.md, "Closed forms".
"""

from __future__ import annotations

import torch
from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.schedules import Cosine, Schedule, expand
from bootdiff.teachers.base import NO_CONDITION, Teacher


class Gaussian(Teacher):
    """The exact denoiser of data that are normal, N(mean, deviation²), and alike in every dimension."""

    def __init__(
        self,
        mean: float = 1.0,
        deviation: float = 0.5,
        shape: tuple[int, ...] = (16,),
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__()
        self.mean, self.deviation, self.shape = mean, deviation, shape
        self.schedule = schedule or Cosine()
        self.name = f"gaussian({mean:g}, {deviation:g})"

    def x0(self, x_t: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """Return m + alpha c² / (alpha² c² + sigma²) (x_t − alpha m), (b, *shape), with m the mean and c the deviation.

        The result has the precision of x_t, because only float64 shows a solver's order.
        """
        alpha, sigma = self._split(t, x_t)
        gain = alpha * self.deviation**2 / self._spread(alpha, sigma)
        return (self.mean + gain * (x_t - alpha * self.mean)).to(x_t.dtype)

    def path(self, eps: Tensor, t: Tensor, t_max: float) -> Tensor:
        """Return the exact y_t of the Signal-ODE that starts at ``y = f(x_T, t_max)``, (b, *shape) in float64.

        Along the ODE ``(x_t − alpha_t m) / sqrt(alpha_t² c² + sigma_t²)`` is constant, with m the mean and c the
        deviation.
        """
        start = torch.full_like(t, t_max)
        eps64 = eps.double()
        x_T = self.schedule.start_scale(t_max) * eps
        alpha_1, sigma_1 = self._split(start, eps)
        x_1 = alpha_1 * self.x0(x_T.double(), start) + sigma_1 * eps64
        alpha, sigma = self._split(t, eps)
        ratio = (self._spread(alpha, sigma) / self._spread(alpha_1, sigma_1)).sqrt()
        x_t = alpha * self.mean + ratio * (x_1 - alpha_1 * self.mean)
        return (x_t - sigma * eps64) / alpha

    def _split(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.schedule.split(self.schedule.lambda_(t))
        if like.device.type == "mps":  # no float64 there; lambda was computed on the CPU
            alpha, sigma = (v.to(like.device, torch.float32) for v in (alpha, sigma))
        return expand(alpha, like), expand(sigma, like)

    def _spread(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha**2 * self.deviation**2 + sigma**2


class Mixture(Teacher):
    """The exact denoiser of an equal mixture of Gaussians that share one deviation and have the given means.

    Args:
        means: the means of the Gaussians, (modes, *shape).
        deviation: the standard deviation of every Gaussian, in every dimension.
        schedule: the noise schedule; cosine where none is given.
    """

    means: Tensor

    def __init__(self, means: Tensor, deviation: float = 0.1, schedule: Schedule | None = None) -> None:
        super().__init__()
        self.register_buffer("means", means.float())
        self.deviation, self.shape = deviation, tuple(means.shape[1:])
        self.schedule = schedule or Cosine()
        self.name = f"mixture of {len(means)}, deviation {deviation:g}"

    def x0(self, x_t: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """Return the mean of the clean image given x_t, (b, *shape).

        It is the average of the Gaussians' posterior means, weighted by their posterior probabilities.
        """
        alpha, sigma = self.schedule.alpha_sigma(t)
        spread = alpha**2 * self.deviation**2 + sigma**2
        flat, means = x_t.flatten(1), self.means.flatten(1)
        offset = flat[:, None] - alpha[:, None, None] * means
        log_weight = -offset.square().sum(-1) / (2 * spread[:, None])
        gain = (alpha * self.deviation**2 / spread)[:, None, None]
        posterior = means + gain * offset
        return (log_weight.softmax(1)[..., None] * posterior).sum(1).reshape(x_t.shape)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Return exact samples of the data, (count, *shape)."""
        mode = torch.randint(len(self.means), (count,), generator=generator)
        return self.means[mode] + self.deviation * torch.randn(count, *self.shape, generator=generator)
