"""A student's network for analytic teachers, which have no network of their own."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.students.growth import GrownNetwork


class PlainNetwork(GrownNetwork):
    """A residual multilayer perceptron from (x_T, target time) to x_0, for flat data of few dimensions.

    It starts at zero: only the boundary loss can bring it to the teacher.

    Args:
        shape: the shape of one sample.
        span: the lowest and the highest target timestep, by which these are brought to [0, 1].
        width, depth: the width and the number of its hidden layers.
    """

    FREQUENCIES = 8

    def __init__(self, shape: tuple[int, ...], span: tuple[float, float], width: int = 256, depth: int = 4) -> None:
        super().__init__()
        self.shape, self.span = tuple(shape), span
        size = math.prod(shape)
        self.first = nn.Linear(size + 2 * self.FREQUENCIES, width)
        self.blocks = nn.ModuleList(nn.Sequential(nn.SiLU(), nn.Linear(width, width)) for _ in range(depth))
        self.last = nn.Linear(width, size)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x_T: Tensor, timestep: Tensor, target: Tensor | None, condition: Condition) -> Tensor:
        """Return x_0, (b, *shape), for the target time, or where there is none for its own."""
        low, high = self.span
        told = timestep if target is None else target
        time = (told.float() - low) / (high - low)
        angles = time[:, None] * 2.0 ** torch.arange(self.FREQUENCIES, device=told.device)
        x = self.first(torch.cat([x_T.flatten(1), angles.sin(), angles.cos()], dim=1))
        for block in self.blocks:
            x = x + block(x)
        return self.last(nn.functional.silu(x)).reshape(-1, *self.shape)

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
