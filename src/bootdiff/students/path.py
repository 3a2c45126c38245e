"""The path student ``y_theta(eps, t)``, from noise and a target time to the signal part of the teacher's path.

Source: docs/method.md, "The student".
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.core.guidance import Plain
from bootdiff.students.base import Student
from bootdiff.students.growth import GrownNetwork
from bootdiff.teachers.base import NO_CONDITION, NetworkTeacher, Teacher
from bootdiff.teachers.one_call import OneCall


class PathStudent(Student):
    """The student of BOOT, ``y_theta(eps, t)``: the teacher's network with an input for the target time.

    The network is always told its own time t_max, and its output is read by the teacher's prediction type. Grown from a
    teacher's network, it begins as ``y_theta(eps, t) = f(x_T, t_max)`` exactly, for every t.

    Args:
        call: how the network's output is read; as x_0 itself where none is given.
    """

    kind = "path"
    timed = True
    probes = ("boundary",)

    def __init__(
        self,
        network: GrownNetwork,
        teacher: Teacher,
        t_min: float,
        t_max: float,
        call: OneCall | None = None,
        guidance: Plain = None,
    ) -> None:
        super().__init__(network, teacher, t_min, t_max, guidance)
        self._call = call or OneCall(scale=1.0, a=0.0, b=1.0)

    @classmethod
    def grown(cls, network: GrownNetwork, teacher: Teacher, t_min: float, t_max: float, guidance: Plain) -> Self:
        """Return the student of a network that was grown from the teacher's."""
        denoiser = teacher.denoiser
        call = denoiser.one_call(t_max) if isinstance(denoiser, NetworkTeacher) else None
        return cls(network, teacher, t_min, t_max, call, guidance)

    @property
    def call(self) -> OneCall:
        """How the output is read, for every target time."""
        return self._call

    def forward(self, eps: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """Return y_theta(eps, t), (b, *shape) in float32, for noises (b, *shape) and times t (b,) in [t_min, t_max]."""
        target = self.schedule.timestep(t)
        own = torch.full_like(target, self.own_timestep)
        out = self.network(self.call.scale * eps, own, target, condition).float()
        return self.call.b * out if self.call.a == 0 else self.call.a * eps + self.call.b * out

    def image_inputs(self, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs (eps, t_min) with which ``forward`` answers with the image."""
        return eps, torch.full((len(eps),), self.t_min, device=eps.device)

    @torch.no_grad()
    def sample(self, eps: Tensor, condition: Condition = NO_CONDITION, t: float | None = None) -> Tensor:
        """Return images (b, *shape) in one call: y_theta(eps, t_min), or the path at ``t``, within the teacher's limit.

        Raises:
            BootdiffError: for noises of another shape, or a ``t`` that the student did not learn.
        """
        if t is None:
            return super().sample(eps, condition)
        self.check(eps, condition)
        if not self.t_min - 1e-6 <= t <= self.t_max + 1e-6:
            raise BootdiffError(f"t = {t:g} is outside this student's [{self.t_min:g}, {self.t_max:g}].")
        return self.limit(self(eps, torch.full((len(eps),), t, device=eps.device), condition))

    def fold(self, weight: float | None = None) -> nn.Module:
        """Return a network of the teacher's class that makes the image in one call.

        Args:
            weight: the guidance weight to fold, for a student that learned a range; the range's middle where none is
                given.
        """
        target = self.schedule.timestep(torch.tensor([self.t_min])).item()
        return self.network.fold(self.own_timestep, target, self.weight(weight))
