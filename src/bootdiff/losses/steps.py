"""Steps of a path, of which every sample of a batch draws one.

Progressive distillation and TRACT learn whole steps of a grid. Source: docs/method.md, "Progressive distillation".
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bootdiff.core.transfer import to_device
from bootdiff.core.turn import Turn
from bootdiff.schedules import Schedule
from bootdiff.solvers import Level


@dataclass(frozen=True)
class Steps:
    """Steps, each of which is three times that do not rise.

    Args:
        points: the times of the N steps, (N, 3) in float32; −1 stands for the image itself.
    """

    points: Tensor

    def __call__(self, turn: Turn, schedule: Schedule, like: Tensor) -> tuple[tuple[Tensor, ...], tuple[Level, ...]]:
        """Return the times of the drawn steps, three of (b,), and the levels there, which broadcast over ``like``."""
        points = to_device(self.points, like.device)
        times = points[turn.draw.integers("step", len(points)).to(like.device)].unbind(1)
        return times, tuple(Level.at(t.clamp(min=0), schedule, like, image=t < 0) for t in times)
