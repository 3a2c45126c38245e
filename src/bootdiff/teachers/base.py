"""What a teacher is: a function from ``(x_t, t, condition)`` to ``x_0``, with a schedule and a shape.

Whatever changes a teacher is again a teacher, which wraps the first one: ``Limited(teacher, Clip())``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bootdiff.config.teacher import TeacherOptions
from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.schedules import Schedule, expand
from bootdiff.teachers.limits import Limit, NoLimit
from bootdiff.teachers.one_call import SMALLEST_HELD, OneCall, exportable_time
from bootdiff.teachers.prediction import Prediction
from bootdiff.teachers.reading import Reading

if TYPE_CHECKING:
    from bootdiff.teachers.adapters.base import Adapter

NO_CONDITION = Condition()

# Below this alpha a noise prediction says too little about x_0: its error is amplified by 1 / alpha
# (docs/method.md, "The ends of the path").
SMALLEST_ALPHA = 0.02


@dataclass(frozen=True)
class Origin(TeacherOptions):
    """Where a teacher comes from, so that it can be loaded again: the arguments of ``load_teacher``."""

    name: str
    #: for a hub id, the commit that its revision stood for when it was loaded; None for any other teacher
    commit: str | None = None

    @property
    def pinned(self) -> dict[str, Any]:
        """The options of ``load_teacher`` that load this very teacher again, whatever the hub has then.

        The commit stands in the place of the revision.
        """
        return self.options if self.commit is None else {**self.options, "revision": self.commit}


class Teacher(nn.Module, ABC):
    """A pretrained denoiser, frozen and in evaluation mode."""

    #: the name that reports call it by: a folder, a hub id, a class name
    name: str
    schedule: Schedule
    #: the shape of one sample, without the batch
    shape: tuple[int, ...]
    #: how x_0 is clipped or thresholded, as the scheduler that came with the teacher says
    limit: Limit = NoLimit()
    #: where ``load_teacher`` found it; None for a teacher that was made in Python
    origin: Origin | None = None
    #: the adapter of the pipeline that it was read from; None for a teacher of no pipeline
    adapter: Adapter | None = None
    #: the class and the size of a network that stands in the place of the teacher's; None for a teacher's own
    architecture: str | None = None

    @abstractmethod
    def x0(self, x_t: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """Return f(x_t, t), the clean image (b, *shape) behind ``x_t`` (b, *shape) at times ``t`` (b,), in float32.

        The times are in [0, 1]. Gradients reach ``x_t`` where it requires them; they never reach the teacher's weights.
        """

    @property
    def denoiser(self) -> Teacher:
        """The innermost teacher, without wrappers, from which a student is grown."""
        return self

    @property
    def reading(self) -> Reading:
        """How a network that learns from this teacher is read: here as x_0 itself."""
        return Reading(self.schedule)

    @cached_property
    def t_range(self) -> tuple[float, float]:
        """The range (t_min, t_max) where the user names none.

        It begins at the table's first step and ends at its last step with alpha ≥ 0.02.
        """
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
        """Return whether sampling may start at these times by default, (b,) in bool: where alpha ≥ 0.02."""
        return self.schedule.alpha_sigma(t)[0] >= SMALLEST_ALPHA

    def nearest_start(self, t: float) -> float:
        """Return the time nearest to ``t`` from which an exported student can start: here ``t`` itself."""
        return t


class NetworkTeacher(Teacher):
    """A teacher made of a network, what its output means, and its schedule.

    Subclasses define how their network is called (``call``).

    Args:
        network: the denoising network, which is frozen here.
        schedule: the noise schedule, alpha and sigma over t.
        prediction: what the network's output means.
        shape: the shape of one sample, without the batch.
        name: the name that reports call it by.
        limit: the clipping that the scheduler asks for; ``Limited`` applies it.
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
        """Return f(x_t, t), (b, *shape) in float32; the conversion is in float32 whatever the network runs in."""
        scale, a, b = (expand(v.to(x_t.device, torch.float32), x_t) for v in self.reading.factors(t))
        out = self.call(self.network, scale * x_t, self.schedule.timestep(t), condition)
        if out.shape != x_t.shape:
            raise BootdiffError(
                f"the network of {self.name} answers with shape {tuple(out.shape)}, expected {tuple(x_t.shape)}."
            )
        x_0 = a * x_t.float() + b * out.float()
        self._remember_failure(x_t, x_0, t)
        return x_0

    @torch.no_grad()
    def _remember_failure(self, x_t: Tensor, x_0: Tensor, t: Tensor) -> None:
        """Keep the first time at which an answer was not finite, on the device, so that nobody waits for it.

        An answer to a question that was not finite itself, such as a student's, is not this network's fault.
        """
        asked, answered = (torch.isfinite(value).flatten(1).all(1) for value in (x_t, x_0))
        met = torch.where(answered | ~asked, torch.inf, t.to(answered.device)).min()
        known = self._failed_at
        self._failed_at = met if known is None else torch.minimum(known.to(met.device), met)

    @property
    def failed_at(self) -> float | None:
        """A time at which this teacher's answer was not finite; None if it always was finite."""
        met = float(self._failed_at) if self._failed_at is not None else math.inf
        return met if math.isfinite(met) else None

    def one_call(self, t_max: float) -> OneCall:
        """Return the prediction f(x_T, t_max) as a function of eps: what one call from pure noise computes.

        Raises:
            BootdiffError: where x_0 cannot be told, because alpha is 0 and the network predicts the noise.
        """
        call = self.reading.at(t_max)
        if not (math.isfinite(call.a) and math.isfinite(call.b)):
            raise BootdiffError(
                f"alpha is 0 at t_max = {t_max:g} (zero terminal SNR), where a network that predicts the noise says "
                f"nothing of the image; lower t_max, for instance to {self.t_range[1]:.3g}."
            )
        return call

    def usable(self, t: Tensor) -> Tensor:
        """Return whether sampling may start at these times by default, (b,) in bool.

        It may where alpha ≥ 0.02 and a stock scheduler can hold the alpha of an exported student.
        """
        calls = [self.reading.at(time) for time in t.tolist()]
        held = [call.a == 0 or call.alpha is None or call.alpha >= SMALLEST_HELD for call in calls]
        return super().usable(t) & torch.tensor(held)

    def nearest_start(self, t: float) -> float:
        """Return the time next to ``t`` whose alpha a stock scheduler can hold (``exportable_time``)."""
        if self.reading.at(t).a == 0:  # signal prediction, or velocity at alpha = 0: nothing to hold
            return t
        return exportable_time(lambda time: self.reading.at(time).alpha, t)

    @property
    def reading(self) -> Reading:
        """How the network's output is read as x_0, at any time."""
        return Reading(self.schedule, self.prediction)


def _check_fit(prediction: Prediction, schedule: Schedule) -> None:
    """Refuse a prediction type whose formula does not hold on this schedule.

    Raises:
        BootdiffError: if it does not hold; the message names both.
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
    """A teacher around another one, which changes that one's answers and nothing else."""

    def __init__(self, inner: Teacher) -> None:
        super().__init__()
        self.inner = inner
        self.name, self.schedule, self.shape, self.limit = inner.name, inner.schedule, inner.shape, inner.limit

    @property
    def denoiser(self) -> Teacher:
        """The innermost teacher, without wrappers, from which a student is grown."""
        return self.inner.denoiser

    @property
    def t_range(self) -> tuple[float, float]:
        """The range (t_min, t_max) of the inner teacher."""
        return self.inner.t_range

    def nearest_start(self, t: float) -> float:
        """Return the time nearest to ``t`` from which an exported student of the inner teacher can start."""
        return self.inner.nearest_start(t)


class Limited(Wrapper):
    """A teacher whose ``x_0`` is clipped or thresholded."""

    def __init__(self, inner: Teacher, limit: Limit | None = None) -> None:
        super().__init__(inner)
        self.limit = limit or inner.limit

    def x0(self, x_t: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """Return the inner teacher's x_0 with the limit applied, (b, *shape) in float32."""
        return self.limit(self.inner.x0(x_t, t, condition))


def limit_of(teacher: Teacher) -> Limit:
    """Return the limit that a teacher's answers have; ``NoLimit`` where it applies none."""
    return teacher.limit if isinstance(teacher, Limited) else NoLimit()


def limited(teacher: Teacher, limit: Limit) -> Teacher:
    """Return ``teacher`` with this limit in place of the one that it has."""
    inner = teacher.inner if isinstance(teacher, Limited) else teacher
    return inner if isinstance(limit, NoLimit) else Limited(inner, limit)
