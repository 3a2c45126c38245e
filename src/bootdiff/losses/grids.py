"""The pairs of neighbouring times at which consistency models are trained, and how they grow denser.

Sources: Song et al., arXiv 2303.01469 (Algorithms 2 and 3, Appendix C), and Song & Dhariwal, arXiv 2310.14189.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from bootdiff.config.base import Settings
from bootdiff.core.errors import BootdiffError
from bootdiff.core.turn import Turn
from bootdiff.schedules import Schedule
from bootdiff.students import Student

#: of the logarithm of the noise level, where times are lognormal: its mean and deviation (arXiv 2310.14189)
MEAN, DEVIATION = -1.1, 2.0


class GridSettings(Settings):
    """The settings of the grid, of the student's boundary, and of the network whose answers are the targets."""

    boundary: Literal["skip", "naive"] | None = Field(
        default=None, description="g(x, t_min) = x by skip connections, or no boundary at all; none = skip, or start's"
    )

    grid: int = Field(
        default=18, ge=2, le=10_000, description="N, the times of the grid from t_min to t_max, at its end"
    )
    grid_growth: Literal["fixed", "square", "doubling"] = Field(
        default="fixed", description="how N grows to that: not at all, by N² linearly in time, or by doubling"
    )
    grid_start: int = Field(default=10, ge=2, le=10_000, description="N at the beginning, where it grows")
    target_decay: float = Field(
        default=0.95,
        ge=0,
        lt=1,
        description="mu, of the average that is the target; 0 = the student itself; where N grows, its first value",
    )
    grid_weight: Literal["uniform", "inverse-step"] = Field(
        default="uniform", description="of the loss at a pair of times: 1, or 1 / (sigma_t − sigma_s)"
    )
    grid_times: Literal["uniform", "lognormal"] = Field(
        default="uniform", description="how a pair of times is drawn: all alike, or by a lognormal noise level"
    )

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.grid_growth != "fixed" and self.grid_start > self.grid:
            raise BootdiffError(f"grid_start {self.grid_start} should not exceed grid, {self.grid}, to which it grows.")
        return self


class TimePairs(Protocol):
    """Draws pairs of neighbouring times, and says how the average follows whose answers are the targets."""

    @property
    def averages(self) -> bool:
        """Whether the targets are those of an average."""
        ...

    def decay(self, updates: int) -> float:
        """Return the average's decay after so many updates."""
        ...

    def __call__(self, turn: Turn, device: torch.device | str) -> tuple[Tensor, Tensor, Tensor]:
        """Return times t and s < t, and the weights of the loss there, each (b,)."""
        ...


@dataclass(frozen=True)
class Grid:
    """Draws pairs of neighbouring times t > s of a grid that is even in t; for EDM that is the Karras grid.

    Args:
        schedule: the noise schedule.
        t_min, t_max: the ends of the grid.
        settings: how dense it is, and how its pairs are drawn and weighted.
        steps: the steps of the training.
    """

    schedule: Schedule
    t_min: float
    t_max: float
    settings: GridSettings
    steps: int

    @classmethod
    def of(cls, settings: GridSettings, student: Student) -> Self:
        """Return the grid of a student."""
        steps: int = settings.steps  # type: ignore[attr-defined]
        return cls(student.schedule, student.t_min, student.t_max, settings, steps)

    @property
    def averages(self) -> bool:
        """Whether the targets are those of an average."""
        return self.settings.target_decay > 0

    def count(self, step: int) -> int:
        """Return N(k), the number of times of the grid after k steps."""
        low, high, growth = self.settings.grid_start, self.settings.grid, self.settings.grid_growth
        if growth == "fixed":
            return high
        if growth == "square":  # with low = s_0 and high = s_1 + 1
            grown = step / self.steps * (high**2 - low**2) + low**2
            return min(high, math.ceil(math.sqrt(grown) - 1) + 1)
        doublings = math.floor(math.log2((high - 1) / (low - 1))) + 1
        every = max(1, self.steps // doublings)
        return int(min((low - 1) * 2 ** (step // every), high - 1)) + 1

    def decay(self, updates: int) -> float:
        """Return mu(k) = exp(s_0 log mu_0 / N(k)), which is mu_0 where N does not grow."""
        mu, settings = self.settings.target_decay, self.settings
        if settings.grid_growth == "fixed":
            return mu
        return math.exp(settings.grid_start * math.log(mu) / self.count(min(updates, self.steps - 1)))

    def __call__(self, turn: Turn, device: torch.device | str) -> tuple[Tensor, Tensor, Tensor]:
        """Return times t and s < t, and the weights of the loss there, each (b,)."""
        intervals = self.count(turn.step) - 1
        step = (self.t_max - self.t_min) / intervals
        number = self._numbers(turn, intervals).to(device)
        s = self.t_min + number * step
        # At the ends exactly the ends, where rounding would leave the range that the student learns.
        t = torch.where(number == intervals - 1, self.t_max, self.t_min + (number + 1) * step)
        if self.settings.grid_weight == "uniform":
            return t, s, torch.ones_like(t)
        return t, s, (1 / (self._level(t) - self._level(s))).float()

    def _numbers(self, turn: Turn, intervals: int) -> Tensor:
        """Return the numbers of the intervals, (b,) from 0 to N − 2."""
        if self.settings.grid_times == "uniform":
            return turn.draw.integers("interval", intervals)
        ends = self.t_min + torch.arange(intervals + 1, dtype=torch.float64) * (self.t_max - self.t_min) / intervals
        levels = self._level(ends).clamp(min=1e-6).log()
        shares = torch.special.erf((levels - MEAN) / (DEVIATION * math.sqrt(2))).diff().clamp(min=1e-12)
        below = (shares / shares.sum()).cumsum(0).float().to(turn.draw.device)
        return torch.searchsorted(below, turn.draw.uniform("interval")).clamp(max=intervals - 1)

    def _level(self, t: Tensor) -> Tensor:
        """Return sigma / alpha, (b,) in float64."""
        return self.schedule.lambda_(t).exp()


@dataclass(frozen=True)
class SkippingGrid:
    """Draws one of N timesteps that are k apart, and the one that is k below it or timestep 0 (arXiv 2310.04378).

    Args:
        timesteps: the number of timesteps of the table of betas.
        t_max: the time of the highest of the N.
        count: N.
        mu: the decay of the average that is the target.
    """

    timesteps: int
    t_max: float
    count: int
    mu: float

    @property
    def averages(self) -> bool:
        """Whether the targets are those of an average."""
        return self.mu > 0

    def decay(self, updates: int) -> float:
        """Return mu, which is the same after every number of updates."""
        return self.mu

    def __call__(self, turn: Turn, device: torch.device | str) -> tuple[Tensor, Tensor, Tensor]:
        """Return times t and s < t, and the weights 1, each (b,)."""
        last = self.timesteps - 1
        stride = (round(self.t_max * last) + 1) // self.count
        high = (turn.draw.integers("interval", self.count).to(device) + 1) * stride - 1
        t, s = high / last, (high - stride).clamp(min=0) / last
        return t, s, torch.ones_like(t)
