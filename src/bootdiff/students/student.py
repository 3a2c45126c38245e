"""The student ``y_theta(eps, t)``: it maps noise and a target time to the signal part of the teacher's path.

Source: docs/method.md, "The student".
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.core.guidance import GuidanceWeight, Plain
from bootdiff.schedules import check_times
from bootdiff.students.growth import GrownNetwork, grow
from bootdiff.students.plain import PlainNetwork
from bootdiff.teachers.base import NO_CONDITION, NetworkTeacher, Teacher
from bootdiff.teachers.limits import Limit
from bootdiff.teachers.one_call import OneCall
from bootdiff.teachers.pipeline import adapter_of


class Student(nn.Module):
    """A student: the teacher's network with an input for the target time.

    The network is always told its own time t_max, and its output is read by the teacher's prediction type. Grown from a
    teacher's network, it begins as ``y_theta(eps, t) = f(x_T, t_max)`` exactly, for every t.

    Args:
        network: a network grown from the teacher's (``Student.from_teacher`` does it), or any other for analytic
            teachers.
        teacher: the teacher, for the schedule, the shape and the limit of the images; its weights are not kept.
        t_min, t_max: the range of target times, in [0, 1]; ``t_min`` is the image.
        call: how the network's output is read; as x_0 itself where none is given.
        guidance: the guidance weight that it learned: None, one weight, or a range that it takes as an input.
    """

    def __init__(
        self,
        network: GrownNetwork,
        teacher: Teacher,
        t_min: float,
        t_max: float,
        call: OneCall | None = None,
        guidance: Plain = None,
    ) -> None:
        super().__init__()
        check_times(t_min, t_max)
        self.network = network
        self.t_min, self.t_max = t_min, t_max
        self.call = call or OneCall(scale=1.0, a=0.0, b=1.0)
        self.schedule, self.shape, self.limit = teacher.schedule, tuple(teacher.shape), teacher.limit
        # How the targets that it learned were limited; the images are limited as the teacher's scheduler says.
        self.target_limit: Limit = self.limit
        self.teacher_name, self.origin, self.adapter = teacher.name, teacher.denoiser.origin, adapter_of(teacher)
        self.learned = GuidanceWeight.of(guidance)
        # What the distillation was asked of conditions: classes, negative prompt, noise level, …
        self.conditions: dict[str, Any] = {}
        # Whether it learned from noise and its teacher alone, without one image of a data set.
        self.data_free = True
        self.own_timestep = self.schedule.timestep(torch.tensor([t_max])).item()

    @classmethod
    def from_teacher(
        cls,
        teacher: Teacher,
        t_min: float | None = None,
        t_max: float | None = None,
        guidance: Plain = None,
    ) -> Student:
        """Grow a student that equals its teacher without guidance, and return it.

        The student of an analytic teacher gets a network of its own.

        Raises:
            BootdiffError: if the teacher's network cannot be grown, the time range is impossible, or the teacher cannot
                tell x_0 at t_max.
        """
        denoiser = teacher.denoiser
        low, high = teacher.t_range
        low, high = low if t_min is None else t_min, high if t_max is None else t_max
        if isinstance(denoiser, NetworkTeacher):
            network = grow(denoiser, guided=GuidanceWeight.of(guidance).is_range)
            return cls(network, teacher, low, high, denoiser.one_call(high), guidance)
        span = denoiser.schedule.timestep(torch.tensor([low, high])).tolist()
        return cls(PlainNetwork(denoiser.shape, (span[0], span[1])), teacher, low, high)

    def forward(self, eps: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """Return y_theta(eps, t), (b, *shape) in float32, for noises (b, *shape) and times t (b,) in [t_min, t_max]."""
        target = self.schedule.timestep(t)
        own = torch.full_like(target, self.own_timestep)
        out = self.network(self.call.scale * eps, own, target, condition).float()
        return self.call.b * out if self.call.a == 0 else self.call.a * eps + self.call.b * out

    def told_weight(self, weight: float | None = None) -> float | None:
        """Return the guidance weight that the condition must hold as ``guidance``; None where the network takes none.

        Args:
            weight: a weight within the range that it learned; the range's middle where none is given.

        Raises:
            BootdiffError: for a weight that it did not learn.
        """
        usual = None if self.adapter is None else self.adapter.embedded_weight
        return self.learned.embedded(weight, usual)

    def weight(self, weight: float | None = None) -> float | None:
        """Return the guidance weight of its images: the one asked for, the one it learned, or the middle of its range.

        Raises:
            BootdiffError: for a weight that it did not learn.
        """
        return self.learned.served(weight)

    @property
    def guidance(self) -> float | tuple[float, float] | None:
        """The guidance weight that it learned: None, one weight, or (lowest, highest)."""
        return self.learned.plain

    @guidance.setter
    def guidance(self, plain: Plain) -> None:
        self.learned = GuidanceWeight.of(plain)

    @torch.no_grad()
    def sample(self, eps: Tensor, condition: Condition = NO_CONDITION, t: float | None = None) -> Tensor:
        """Return images (b, *shape) in one call: y_theta(eps, t_min), or the path at ``t``, within the teacher's limit.

        Raises:
            BootdiffError: for noises of another shape, or a ``t`` that the student did not learn.
        """
        if not isinstance(eps, Tensor) or tuple(eps.shape[1:]) != self.shape:
            found = tuple(eps.shape) if isinstance(eps, Tensor) else f"a {type(eps).__name__}"
            raise BootdiffError(f"expected noises of shape (b, {', '.join(map(str, self.shape))}), got {found}.")
        self._check_condition(condition, len(eps))
        if t is not None and not self.t_min - 1e-6 <= t <= self.t_max + 1e-6:
            raise BootdiffError(f"t = {t:g} is outside this student's [{self.t_min:g}, {self.t_max:g}].")
        times = torch.full((eps.shape[0],), self.t_min if t is None else t, device=eps.device)
        return self.limit(self(eps, times, condition))

    def _check_condition(self, condition: Condition, count: int) -> None:
        needed = set(self.adapter.blank(1)) if self.adapter is not None else set()
        if self.told_weight() is not None:
            needed.add("guidance")
        if self.adapter is not None and "classes" in condition and self.adapter.takes != "classes":
            raise BootdiffError(f"this student is conditioned on {self.adapter.takes}, not on classes; leave them out.")
        for name, value in condition.items():
            if len(value) != count:
                raise BootdiffError(f"expected a condition for {count} samples, got '{name}' for {len(value)}.")
        missing = sorted(needed - set(condition))
        if missing:
            raise BootdiffError(
                f"this student's condition should hold {', '.join(sorted(needed))}, and {', '.join(missing)} is "
                "missing; make one with bootdiff.Classes([0, 1]).listed(seed, start, stop), say, and .add(guidance=w)."
            )

    def fold(self, weight: float | None = None) -> nn.Module:
        """Return a network of the teacher's class that makes the image in one call.

        Args:
            weight: the guidance weight to fold, for a student that learned a range; the range's middle where none is
                given.
        """
        target = self.schedule.timestep(torch.tensor([self.t_min])).item()
        return self.network.fold(self.own_timestep, target, self.weight(weight))

    def one_step(self, weight: float | None = None) -> OneStep:
        """Return the fastest way to sample: a module of the folded network and two numbers."""
        return OneStep(self.fold(weight), self)

    def decode(self, sample: Tensor) -> Tensor:
        """Return images in [−1, 1] from samples; those of a latent teacher are decoded."""
        return sample if self.adapter is None else self.adapter.decode(sample)


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
