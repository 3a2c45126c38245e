"""The fastest way to sample from a student: its folded network and two numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.teachers.base import NO_CONDITION

if TYPE_CHECKING:
    from bootdiff.students.base import Student


class OneStep(nn.Module):
    """A folded student, ``limit(a eps + b network(scale · eps))``: one call of the network and little else."""

    def __init__(self, network: nn.Module, student: Student) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.call, self.limit, self.shape = student.call, student.limit, student.shape
        self.adapter = student.adapter
        # A pipeline's folded network knows its time and is told 0; a plain one is told t_max.
        own = student.schedule.timestep(torch.tensor([0.0 if self.adapter else student.t_max]))
        self.own: Tensor
        self.register_buffer("own", torch.zeros_like(own) if self.adapter else own)

    @torch.no_grad()
    def forward(self, eps: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """Return samples (b, *shape) for noises (b, *shape)."""
        if not isinstance(condition, Condition):
            raise BootdiffError(f"expected a bootdiff.Condition beside the noises, got {type(condition).__name__}.")
        call, own = self.call, self.own.expand(len(eps))
        x_T = eps if call.scale == 1 else call.scale * eps
        if self.adapter is not None:
            out = self.adapter.call(self.network, x_T, own, condition)
        else:
            out = self.network(x_T, own, **condition)
            out = out if isinstance(out, Tensor) else out.sample
        return self.limit(call.b * out if call.a == 0 else torch.add(call.a * eps, out, alpha=call.b))
