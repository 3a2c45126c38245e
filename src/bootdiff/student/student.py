"""The student ``y_theta(eps, t)``: from noise and a target time to the signal part of the teacher's path."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bootdiff.condition import Condition
from bootdiff.errors import BootdiffError
from bootdiff.schedules import check_times, expand
from bootdiff.student.growth import GrownNetwork, grow
from bootdiff.teachers.base import NO_CONDITION, NetworkTeacher, Teacher


class Student(nn.Module):
    """The teacher's network with a target-time slot, read at its own time t_max with the teacher's prediction type.

    At initialisation ``y_theta(eps, t) = f(x_T, t_max)`` exactly, for every t.

    Args:
        network: grown from the teacher's (``Student.from_teacher`` does it).
        teacher: says what the network's output means, and its schedule; its weights are not kept.
        t_min, t_max: the range of target times; ``t_min`` is the image.
    """

    def __init__(self, network: GrownNetwork, teacher: NetworkTeacher, t_min: float, t_max: float) -> None:
        super().__init__()
        check_times(t_min, t_max)
        self.network = network
        self.t_min, self.t_max = t_min, t_max
        self.schedule, self.prediction, self.shape = teacher.schedule, teacher.prediction, teacher.shape
        self.limit, self.teacher_name = teacher.limit, teacher.name

    @classmethod
    def from_teacher(cls, teacher: Teacher, t_min: float | None = None, t_max: float | None = None) -> Student:
        """Grow a student that equals its teacher.

        Raises:
            BootdiffError: if the teacher has no network (an analytic one), or for an impossible time range.
        """
        denoiser = teacher.denoiser
        if not isinstance(denoiser, NetworkTeacher):
            raise BootdiffError(
                f"a student cannot be grown from {teacher.name}: it has no network; give one of your own."
            )
        low, high = teacher.t_range
        return cls(grow(denoiser.network), denoiser, low if t_min is None else t_min, high if t_max is None else t_max)

    def forward(self, eps: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """y_theta(eps, t), (b, *shape) in float32, for noises (b, *shape) and target times (b,) in [t_min, t_max]."""
        x_T = self.schedule.start_scale(self.t_max) * eps
        own = torch.full_like(t, self.t_max)
        out = self.network(x_T, self.schedule.timestep(own), self.schedule.timestep(t), condition)
        alpha, sigma = (expand(v, eps) for v in self.schedule.alpha_sigma(own))
        return self.prediction.x0(out.float(), x_T, alpha, sigma)

    @torch.no_grad()
    def sample(self, eps: Tensor, condition: Condition = NO_CONDITION, t: float | None = None) -> Tensor:
        """Images in one call: y_theta(eps, t_min), or the path at ``t``, within the teacher's own range.

        Raises:
            BootdiffError: for noises of another shape, or a ``t`` that the student never learned.
        """
        if tuple(eps.shape[1:]) != tuple(self.shape):
            raise BootdiffError(
                f"expected noises of shape (b, {', '.join(map(str, self.shape))}), got {tuple(eps.shape)}."
            )
        if t is not None and not self.t_min - 1e-6 <= t <= self.t_max + 1e-6:
            raise BootdiffError(f"t = {t:g} is outside this student's [{self.t_min:g}, {self.t_max:g}].")
        times = torch.full((eps.shape[0],), self.t_min if t is None else t, device=eps.device)
        return self.limit(self(eps, times, condition))

    def fold(self) -> nn.Module:
        """A network of the teacher's class that makes the image in one call."""
        own, target = self.schedule.timestep(torch.tensor([self.t_max, self.t_min])).tolist()
        return self.network.fold(own, target)
