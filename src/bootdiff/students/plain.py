"""A student's network for analytic teachers, which have no network of their own."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.students.growth import GrownNetwork


class PlainNetwork(GrownNetwork):
    """A residual multilayer perceptron from (x_t, time) to x_0, for flat data of few dimensions.

    The time is the target time where there is one, as the own time is then always t_max; or the network is told both.
    It starts at zero: only training can bring it to the teacher.

    Args:
        shape: the shape of one sample.
        span: the lowest and the highest timestep, by which these are brought to [0, 1].
        both: whether it is told its own time beside the target time.
        width, depth: the width and the number of its hidden layers.
    """

    FREQUENCIES = 8

    def __init__(
        self,
        shape: tuple[int, ...],
        span: tuple[float, float],
        both: bool = False,
        width: int = 256,
        depth: int = 4,
    ) -> None:
        super().__init__()
        self.shape, self.span, self.both = tuple(shape), span, both
        size = math.prod(shape)
        self.first = nn.Linear(size + (4 if both else 2) * self.FREQUENCIES, width)
        self.blocks = nn.ModuleList(nn.Sequential(nn.SiLU(), nn.Linear(width, width)) for _ in range(depth))
        self.last = nn.Linear(width, size)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x_T: Tensor, timestep: Tensor, target: Tensor | None, condition: Condition) -> Tensor:
        """Return x_0, (b, *shape), for the target time, or where there is none for its own."""
        told = timestep if target is None else target
        times = [told, timestep] if self.both else [told]
        x = self.first(torch.cat([x_T.flatten(1), *(wave for time in times for wave in self._waves(time))], dim=1))
        for block in self.blocks:
            x = x + block(x)
        return self.last(nn.functional.silu(x)).reshape(-1, *self.shape)

    def _waves(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.span
        time = (timestep.float() - low) / (high - low)
        angles = time[:, None] * 2.0 ** torch.arange(self.FREQUENCIES, device=time.device)
        return angles.sin(), angles.cos()

    def fold(self, timestep: float, target: float | None, weight: float | None = None) -> nn.Module:
        """Return a copy of the network that is bound to one target time."""
        return _Folded(copy.deepcopy(self), timestep if target is None else target)


class _Folded(nn.Module):
    def __init__(self, network: PlainNetwork, target: float) -> None:
        super().__init__()
        self.network = network
        self.target: Tensor
        self.register_buffer("target", torch.tensor([float(target)]))

    def forward(self, x_T: Tensor, timestep: Tensor) -> Tensor:
        return self.network(x_T, timestep, self.target.expand(len(x_T)), Condition())
