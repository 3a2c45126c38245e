"""Several calls of a consistency student: denoise, noise again with fresh noise, denoise.

Song et al., arXiv 2303.01469, Algorithm 1. Source: docs/method.md, "More than one call".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.core.transfer import settled
from bootdiff.samplers.base import Noises, fresh
from bootdiff.samplers.few_step import check_falling, table_length
from bootdiff.schedules.table import BetaTable
from bootdiff.solvers import trailing_times
from bootdiff.students.consistency import ConsistencyStudent
from bootdiff.teachers.base import NO_CONDITION


def noised_again(student: ConsistencyStudent, x: Tensor, z: Tensor, tau: float) -> Tensor:
    """Return x_tau, (b, *shape), of a consistency student's answers x (b, *shape) and fresh noises z.

    ``x_tau = (alpha_tau / alpha_m) x_m + sqrt(sigma_tau² − (alpha_tau sigma_m / alpha_m)²) z`` with m = t_min. An
    answer is ``x = x_m / alpha_m``, and the noise that is still in it counts at tau.
    """
    alpha, sigma = (v.item() for v in student.schedule.alpha_sigma(torch.tensor([tau])))
    left = student.boundary.left(student.t_min, student.schedule)
    return alpha * x + max(0.0, sigma**2 - (alpha * left) ** 2) ** 0.5 * z


def consistency_times(student: ConsistencyStudent, calls: int) -> list[float]:
    """Return the usual falling times from t_max, about evenly spaced among the student's (``possible_times``).

    They are those of LCMScheduler on a table of betas, and of CMStochasticIterativeScheduler elsewhere.

    Raises:
        BootdiffError: if the student has fewer times.
    """
    times = possible_times(student)
    if times is None:
        return trailing_times(calls, student.t_min, student.t_max)
    most, count = most_calls(student), len(times)
    if most is not None and calls > most:
        raise BootdiffError(f"{calls} calls are more than the {most} that this student's times allow; ask for fewer.")
    if isinstance(student.schedule, BetaTable):  # rounded as LCMScheduler does
        numbers = np.floor(np.linspace(0, count, calls, endpoint=False)).astype(int).tolist()
    else:
        numbers = [call * (count // calls) for call in range(calls)]
    return [times[number] for number in numbers]


def most_calls(student: ConsistencyStudent) -> int | None:
    """Return the largest number of calls; None if any will do. At t_min there is nothing left to ask."""
    times = possible_times(student)
    return None if times is None else len(times) - (times[-1] <= student.t_min)


def possible_times(student: ConsistencyStudent) -> list[float] | None:
    """Return every time at which a student may be called, falling from t_max; None if any may be.

    On a table of betas they are every k-th timestep, as LCMScheduler counts them; elsewhere, for a student of so many
    points, they are even from t_max to t_min, as CMStochasticIterativeScheduler has them.
    """
    points, low, high = student.points, student.t_min, student.t_max
    if isinstance(student.schedule, BetaTable):
        length, last = table_length(student.schedule, high), student.schedule.num_timesteps - 1
        count = length if points is None else min(points, length)
        stride = length // count
        return [((count - number) * stride - 1) / last for number in range(count)]
    if points is None:
        return None
    return [high + number / (points - 1) * (low - high) for number in range(points)]


class MultistepConsistency:
    """A consistency student that is called at several times, on its own image with fresh noise after the first.

    Args:
        student: the student.
        times: falling times; the first is where sampling starts, usually t_max.

    Raises:
        BootdiffError: for another kind of student, or times that do not fall or that it did not learn.
    """

    #: its calls after the first need fresh noise, so ``samplers.base.sampled`` hands it all noises
    draws_noise = True

    def __init__(self, student: ConsistencyStudent, times: Sequence[float]) -> None:
        if not isinstance(student, ConsistencyStudent):
            raise BootdiffError(f"consistency sampling is for consistency students, got a {student.kind} student.")
        if not times:
            raise BootdiffError("expected at least one time to call a student at, got none.")
        check_falling(times, student)
        self.student, self.times, self.calls = student, tuple(times), len(times)
        self.shape, self.adapter = student.shape, student.adapter

    def told_weight(self, weight: float | None) -> float | None:
        """Return the guidance weight that the student's condition must hold; None where it holds none."""
        return self.student.told_weight(weight)

    @torch.no_grad()
    def __call__(self, eps: Tensor | Noises, condition: Condition = NO_CONDITION) -> Tensor:
        """Return samples (b, *shape).

        Raises:
            BootdiffError: for starting noises alone, where there is more than one call.
        """
        first = eps if isinstance(eps, Tensor) else eps.eps
        self.student.check(first, condition)
        student = settled(self.student, first.device)
        x = self._image(student, self._start(student, first), self.times[0], condition)
        for call, tau in enumerate(self.times[1:], start=1):
            x = self._image(student, noised_again(student, x, fresh(eps, call), tau), tau, condition)
        return x

    def _start(self, student: ConsistencyStudent, eps: Tensor) -> Tensor:
        return student.schedule.start_scale(self.times[0]) * eps

    def _image(self, student: ConsistencyStudent, x_t: Tensor, time: float, condition: Condition) -> Tensor:
        return student.limit(student(x_t, torch.full((len(x_t),), time, device=x_t.device), condition))
