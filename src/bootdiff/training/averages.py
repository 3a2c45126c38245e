"""Averages of a learner's weights over its updates: each is kept as tensors, and a loss may call it as a network."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bootdiff.methods.base import Decay


class Average:
    """An exponential moving average of parameters, updated in place without temporary copies.

    Args:
        parameters: the parameters that it follows.
        decay: its decay, as a function of the number of updates so far.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: Decay) -> None:
        self.sources: list[nn.Parameter] = list(parameters)
        self.averages: list[Tensor] = [p.detach().clone() for p in self.sources]
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def step(self) -> None:
        """Move the averages towards the present weights."""
        torch._foreach_lerp_(self.averages, list[Tensor](self.sources), 1 - self.decay(self.steps))
        self.steps += 1

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the averages and the present weights."""
        for parameter, average in zip(self.sources, self.averages, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(kept)

    def network(self, raw: nn.Module) -> nn.Module:
        """Return a network like ``raw`` that answers with the averages, as they are at each call, without gradients.

        It shares its weights with this average, and all other tensors with ``raw``, so it takes no memory of its own.
        """
        twins = zip(self.sources, self.averages, strict=True)
        known: dict[int, object] = {id(tensor): tensor for tensor in (*raw.parameters(), *raw.buffers())}
        known.update({id(source): nn.Parameter(average, requires_grad=False) for source, average in twins})
        return copy.deepcopy(raw, known)
