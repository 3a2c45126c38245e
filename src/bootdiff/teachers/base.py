"""What a teacher is: ``x_0`` from ``(x_t, t, condition)``, a schedule and a shape.

Whatever changes a teacher is a teacher again, by wrapping: ``Limited(teacher, Clip())``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from bootdiff.config.teacher import TeacherOptions
from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.schedules import Schedule, expand
from bootdiff.teachers.limits import Limit, NoLimit
from bootdiff.teachers.one_call import SMALLEST_HELD, OneCall, exportable_time
from bootdiff.teachers.prediction import Prediction

NO_CONDITION = Condition()

# Below this alpha a noise prediction says too little about x_0: its error is amplified by 1 / alpha
# (docs/method.md, "The ends of the path").
SMALLEST_ALPHA = 0.02


@dataclass(frozen=True)
class Origin(TeacherOptions):
    """Where a teacher comes from, so that it can be loaded again: the arguments of ``load_teacher``."""

    name: str
    #: of a hub id: the commit that its revision stood for when it was loaded
    commit: str | None = None

    @property
    def pinned(self) -> dict[str, Any]:
        """The same with the commit for the revision: what loads this very teacher again, whatever the hub has then."""
        return self.options if self.commit is None else {**self.options, "revision": self.commit}


class Teacher(nn.Module, ABC):
    """A pretrained denoiser, frozen and in evaluation mode."""

    #: what to call it in reports: a folder, a hub id, a class name
    name: str
    schedule: Schedule
    #: the shape of one sample, without the batch
    shape: tuple[int, ...]
    #: the teacher's own words for the shipped scheduler: how x_0 is clipped or thresholded
    limit: Limit = NoLimit()
    #: where ``load_teacher`` found it
    origin: Origin | None = None

    @abstractmethod
    def x0(self, x_t: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """f(x_t, t): the clean image behind ``x_t`` (b, *shape) at times ``t`` (b,) in [0, 1], in float32.

        Gradients reach ``x_t`` where it requires them; the teacher's own weights never do.
        """

    @property
    def denoiser(self) -> Teacher:
        """The innermost teacher, without wrappers: what a student is grown from."""
        return self

    def factors(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(scale, a, b) of ``x_0 = a x_t + b network(scale · x_t)``; here of a network that answers x_0 itself."""
        one = torch.ones_like(t, dtype=torch.float64)
        return one, torch.zeros_like(one), one

    @cached_property
    def t_range(self) -> tuple[float, float]:
        """(t_min, t_max) to use where the user names none: the table's first step, and the last with alpha ≥ 0.02."""
        steps = self.schedule.num_timesteps
        t = torch.arange(steps, dtype=torch.float64) / (steps - 1)
        usable = self.usable(t).nonzero()
        if len(usable) == 0:
            raise BootdiffError(
                f"the schedule of {self.name} has no time with alpha ≥ {SMALLEST_ALPHA:g}, so nothing is left of an "
                "image at any of them; check its betas."
            )
        first = 0.0 if bool(torch.isfinite(self.schedule.lambda_(t[:1]))) else t[1].item()
        return first, self.nearest_start(t[usable[-1, 0]].item())

    def usable(self, t: Tensor) -> Tensor:
        """At which times sampling may start by default, bool, (b,)."""
        return self.schedule.alpha_sigma(t)[0] >= SMALLEST_ALPHA

    def nearest_start(self, t: float) -> float:
        """The t_max next to ``t`` that an exported student can start from; ``t`` itself where nothing hinders it."""
        return t


class NetworkTeacher(Teacher):
    """A teacher made of a network, what its output means, and its schedule.

    Subclasses say how their network is called (``call``).

    Args:
        network: the denoising network; frozen here.
        schedule: alpha and sigma over t.
        prediction: what the network's output means.
        shape: of one sample, without the batch.
        name: for reports.
        limit: the scheduler's own clipping; ``Limited`` applies it.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        prediction: Prediction,
        shape: tuple[int, ...],
        name: str,
        limit: Limit | None = None,
    ) -> None:
        super().__init__()
        self._failed_at: Tensor | None = None
        self.network = network.requires_grad_(False).eval()
        self.schedule, self.prediction, self.shape, self.name = schedule, prediction, shape, name
        self.limit = limit or NoLimit()
        _check_fit(prediction, schedule)

    def call(self, network: nn.Module, x_t: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run a network of this teacher's kind and return its raw output, (b, *shape)."""
        out = network(x_t, timestep, **condition)
        return out if isinstance(out, Tensor) else out.sample  # as diffusers' networks wrap it

    def x0(self, x_t: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """f(x_t, t); the conversion runs in float32 whatever the network runs in."""
        scale, a, b = (expand(v.to(x_t.device, torch.float32), x_t) for v in self.factors(t))
        out = self.call(self.network, scale * x_t, self.schedule.timestep(t), condition)
        if out.shape != x_t.shape:
            raise BootdiffError(
                f"the network of {self.name} answers with shape {tuple(out.shape)}, expected {tuple(x_t.shape)}."
            )
        x_0 = a * x_t.float() + b * out.float()
        self._remember_failure(x_0, t)
        return x_0

    @torch.no_grad()
    def _remember_failure(self, x_0: Tensor, t: Tensor) -> None:
        """Keep the first time at which an answer was not finite, on the device, which need not be waited for."""
        finite = torch.isfinite(x_0).flatten(1).all(1)
        met = torch.where(finite, torch.inf, t.to(finite.device)).min()
        known = self._failed_at
        self._failed_at = met if known is None else torch.minimum(known.to(met.device), met)

    @property
    def failed_at(self) -> float | None:
        """A time at which this teacher's answer was not finite, if it ever was."""
        met = float(self._failed_at) if self._failed_at is not None else math.inf
        return met if math.isfinite(met) else None

    def one_call(self, t_max: float) -> OneCall:
        """The prediction f(x_T, t_max) as a function of eps: what one call from pure noise computes.

        Raises:
            BootdiffError: where x_0 cannot be told, at alpha = 0 with noise prediction.
        """
        call = self._one_call(t_max)
        if not (math.isfinite(call.a) and math.isfinite(call.b)):
            raise BootdiffError(
                f"alpha is 0 at t_max = {t_max:g} (zero terminal SNR), where a network that predicts the noise says "
                f"nothing of the image; lower t_max, for instance to {self.t_range[1]:.3g}."
            )
        return call

    def usable(self, t: Tensor) -> Tensor:
        """Those, and where a stock scheduler can hold the alpha of an exported student."""
        calls = [self._one_call(time) for time in t.tolist()]
        held = [call.a == 0 or call.alpha is None or call.alpha >= SMALLEST_HELD for call in calls]
        return super().usable(t) & torch.tensor(held)

    def nearest_start(self, t: float) -> float:
        """The time next to ``t`` whose alpha a stock scheduler can hold (``exportable_time``)."""
        if self._one_call(t).a == 0:  # signal prediction, or velocity at alpha = 0: nothing to hold
            return t
        return exportable_time(lambda time: self._one_call(time).alpha, t)

    def _one_call(self, time: float) -> OneCall:
        scale, a, b = (v.item() for v in self.factors(torch.tensor([time])))
        start = self.schedule.start_scale(time)
        return OneCall(start * scale, start * a, b)

    def factors(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(scale, a, b) of ``x_0 = a x_t + b network(scale · x_t)``, in float64, each (b,)."""
        alpha, sigma = self.schedule.split(self.schedule.lambda_(t))
        return self.prediction.input_scale(alpha, sigma), *self.prediction.factors(alpha, sigma)


def _check_fit(prediction: Prediction, schedule: Schedule) -> None:
    """Refuse a prediction type whose formula does not hold on this schedule.

    Raises:
        BootdiffError: naming both.
    """
    t = torch.tensor([0.3, 0.6], dtype=torch.float64)
    alpha, sigma = schedule.split(schedule.lambda_(t))
    x_0, eps = torch.tensor([0.7, -0.4], dtype=torch.float64), torch.tensor([-0.3, 1.1], dtype=torch.float64)
    out = prediction.output(x_0, eps, alpha, sigma)
    if not bool(torch.isfinite(prediction.x0(out, alpha * x_0 + sigma * eps, alpha, sigma)).all()):
        return  # alpha = 0 so early: t_range says so
    if not torch.allclose(prediction.x0(out, alpha * x_0 + sigma * eps, alpha, sigma), x_0):
        raise BootdiffError(
            f"prediction type '{prediction.name}' does not fit the schedule {type(schedule).__name__}: v_prediction "
            "needs a variance-preserving one, flow_prediction rectified flow, edm alpha = 1."
        )


class Wrapper(Teacher):
    """A teacher around another one, of which it changes the answers only."""

    def __init__(self, inner: Teacher) -> None:
        super().__init__()
        self.inner = inner
        self.name, self.schedule, self.shape, self.limit = inner.name, inner.schedule, inner.shape, inner.limit

    @property
    def denoiser(self) -> Teacher:
        """The innermost teacher."""
        return self.inner.denoiser

    @property
    def t_range(self) -> tuple[float, float]:
        """The inner teacher's."""
        return self.inner.t_range

    def nearest_start(self, t: float) -> float:
        """The inner teacher's."""
        return self.inner.nearest_start(t)


class Limited(Wrapper):
    """A teacher whose ``x_0`` is clipped or thresholded."""

    def __init__(self, inner: Teacher, limit: Limit | None = None) -> None:
        super().__init__(inner)
        self.limit = limit or inner.limit

    def x0(self, x_t: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """The inner teacher's x_0, limited."""
        return self.limit(self.inner.x0(x_t, t, condition))


def limit_of(teacher: Teacher) -> Limit:
    """How this teacher's answers are limited."""
    return teacher.limit if isinstance(teacher, Limited) else NoLimit()


def limited(teacher: Teacher, limit: Limit) -> Teacher:
    """``teacher`` with this limit in place of the one it has."""
    inner = teacher.inner if isinstance(teacher, Limited) else teacher
    return inner if isinstance(limit, NoLimit) else Limited(inner, limit)
