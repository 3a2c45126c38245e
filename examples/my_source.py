"""A source from outside the package: pairs whose ends are found by few, large steps of the teacher, and not stored."""

from dataclasses import dataclass

import torch

from bootdiff.data.sources import Ahead, Batch, Noise
from bootdiff.solvers import Heun, even_times, solve


@dataclass
class FreshPairs(Ahead):
    """Pairs that are made for every step anew: always fresh, and as dear as the teacher's steps.

    Args:
        teacher: the teacher that makes them.
        steps: Heun's steps along its path.
    """

    teacher: torch.nn.Module
    steps: int = 4
    kind = "pairs"
    data_free = True

    @property
    def digest(self):
        """Return words that tell these batches from others; a run of others is another run."""
        return f"fresh pairs, {self.steps} steps"

    def modules(self):
        """Return the networks that are asked, to be moved to the training device."""
        return (self.teacher,)

    def batch(self, draw):
        """Return the slice of a batch that a draw stands for, as a function of the draw alone."""
        fresh = Noise(self.teacher.shape).batch(draw)
        times = even_times(self.steps, *self.teacher.t_range)
        return Batch(fresh.noise, fresh.condition, solve(self.teacher, fresh.noise, times, Heun(), fresh.condition)[-1])
