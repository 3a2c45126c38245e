"""What a teacher is: ``x_0`` from ``(x_t, t, condition)``, a schedule and a shape.

Whatever changes a teacher is a teacher again, by wrapping: ``Limited(teacher, Clip())``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from bootdiff.condition import Condition
from bootdiff.schedules import Schedule, expand, exportable_time
from bootdiff.teachers.limits import Limit, NoLimit
from bootdiff.teachers.prediction import Prediction

NO_CONDITION = Condition()

# Below this alpha a noise prediction says too little about x_0: its error is amplified by 1 / alpha.
SMALLEST_ALPHA = 0.02


class Teacher(nn.Module, ABC):
    """A pretrained denoiser, frozen and in evaluation mode."""

    #: what to call it in reports: a folder, a hub id, a class name
    name: str
    schedule: Schedule
    #: the shape of one sample, without the batch
    shape: tuple[int, ...]
    #: the teacher's own words for the shipped scheduler: how x_0 is clipped or thresholded
    limit: Limit = NoLimit()

    @abstractmethod
    def x0(self, x_t: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """f(x_t, t): the clean image behind ``x_t`` (b, *shape) at times ``t`` (b,) in [0, 1], in float32.

        Gradients reach ``x_t`` where it requires them; the teacher's own weights never do.
        """

    @property
    def denoiser(self) -> Teacher:
        """The innermost teacher, without wrappers: what a student is grown from."""
        return self

    @property
    def t_range(self) -> tuple[float, float]:
        """(t_min, t_max) to use where the user names none: the table's first step, and the last with alpha ≥ 0.02."""
        steps = self.schedule.num_timesteps
        t = torch.arange(steps, dtype=torch.float64) / (steps - 1)
        alpha, _ = self.schedule.alpha_sigma(t)
        usable = (alpha >= SMALLEST_ALPHA).nonzero()
        first = 0.0 if bool(torch.isfinite(self.schedule.lambda_(t[:1]))) else t[1].item()
        return first, exportable_time(self.schedule, t[usable[-1, 0]].item())


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
        self.network = network.requires_grad_(False).eval()
        self.schedule, self.prediction, self.shape, self.name = schedule, prediction, shape, name
        self.limit = limit or NoLimit()

    def call(self, network: nn.Module, x_t: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run a network of this teacher's kind and return its raw output, (b, *shape)."""
        return network(x_t, timestep, **condition)

    def timestep(self, t: Tensor) -> Tensor:
        """What the network's time input gets for t in [0, 1]."""
        return self.schedule.timestep(t)

    def x0(self, x_t: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """f(x_t, t); the conversion runs in float32 whatever the network runs in."""
        out = self.call(self.network, x_t, self.timestep(t), condition)
        alpha, sigma = (expand(v, x_t) for v in self.schedule.alpha_sigma(t))
        return self.prediction.x0(out.float(), x_t.float(), alpha, sigma)


class Limited(Teacher):
    """A teacher whose ``x_0`` is clipped or thresholded."""

    def __init__(self, inner: Teacher, limit: Limit | None = None) -> None:
        super().__init__()
        self.inner = inner
        self.name, self.schedule, self.shape = inner.name, inner.schedule, inner.shape
        self.limit = limit or inner.limit

    @property
    def denoiser(self) -> Teacher:
        """The innermost teacher."""
        return self.inner.denoiser

    def x0(self, x_t: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """The inner teacher's x_0, limited."""
        return self.limit(self.inner.x0(x_t, t, condition))
