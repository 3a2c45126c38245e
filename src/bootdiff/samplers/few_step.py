"""A few DDIM steps of a denoising student, or a few jumps of a jump student.

Source: docs/method.md, "More than one call".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.core.transfer import settled
from bootdiff.schedules import BetaTable, Schedule, expand
from bootdiff.solvers import trailing_times
from bootdiff.students import Student
from bootdiff.students.denoising import DenoisingStudent
from bootdiff.students.jump import JumpStudent
from bootdiff.teachers.base import NO_CONDITION


@dataclass(frozen=True)
class Step:
    """One call of a student: it is asked at time ``t``, and its answer leads to time ``s``; None is the image itself.

    A stock scheduler's next ``t`` is not always this ``s``: where the calls do not divide its table, both are rounded.
    """

    t: float
    s: float | None


def even_steps(calls: int, t_min: float, t_max: float) -> list[Step]:
    """Return steps at even times from t_max down, the last of which leads to the image."""
    times = trailing_times(calls, t_min, t_max)
    return [Step(t, s) for t, s in zip(times, [*times[1:], None], strict=True)]


def table_length(schedule: Schedule, t_max: float) -> int:
    """Return the number of entries of a schedule's table up to t_max: the table of a student that starts there."""
    return round(t_max * (schedule.num_timesteps - 1)) + 1


def stock_steps(calls: int, schedule: Schedule, t_max: float) -> list[Step]:
    """Return the steps that diffusers' DDIMScheduler takes with "trailing" timesteps, for a table that ends at t_max.

    Its timesteps are ``round(T, T − T / calls, …) − 1``, and each leads to the timestep ``t − T // calls``; what would
    lie before the table is the image.

    Raises:
        BootdiffError: if there are more calls than entries in the table.
    """
    import numpy as np

    length, last = table_length(schedule, t_max), schedule.num_timesteps - 1
    if calls > length:
        raise BootdiffError(f"{calls} calls are more than this student's {length} timesteps; ask for fewer.")
    asked = np.round(np.arange(length, 0, -length / calls))[:calls].astype(int) - 1
    reached = asked - length // calls
    return [Step(t / last, s / last if s >= 0 else None) for t, s in zip(asked.tolist(), reached.tolist(), strict=True)]


def steps_of(student: Student, calls: int) -> list[Step]:
    """Return the steps at which a student is usually called.

    They are those of its exported pipeline for a denoising student on a table of betas, and even ones for others.
    """
    if isinstance(student, DenoisingStudent) and isinstance(student.schedule, BetaTable):
        return stock_steps(calls, student.schedule, student.t_max)
    return even_steps(calls, student.t_min, student.t_max)


class FewStep:
    """A student that is called several times, with a DDIM step (Eq. 2) after each call but the last.

    As in stock DDIM, the teacher's limit is x_0's alone: the noise of a step is that of the student's own answer.

    Args:
        student: a denoising student, or a jump student, which is told where each step leads.
        steps: the steps, with falling times.

    Raises:
        BootdiffError: for a student of another kind, for no steps, or for times that do not fall or that the student
            did not learn.
    """

    def __init__(self, student: DenoisingStudent | JumpStudent, steps: Sequence[Step]) -> None:
        if not isinstance(student, DenoisingStudent | JumpStudent):
            raise BootdiffError(f"DDIM steps are for denoising and jump students, got a {student.kind} student.")
        if not steps:
            raise BootdiffError("expected at least one step of a student, got none.")
        check_falling([step.t for step in steps], student)
        self.student, self.steps, self.calls = student, tuple(steps), len(steps)
        self.shape, self.adapter = student.shape, student.adapter

    def told_weight(self, weight: float | None) -> float | None:
        """Return the guidance weight that the student's condition must hold; None where it holds none."""
        return self.student.told_weight(weight)

    @torch.no_grad()
    def __call__(self, eps: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """Return samples (b, *shape) of noises (b, *shape)."""
        self.student.check(eps, condition)
        student = settled(self.student, eps.device)
        x = student.schedule.start_scale(self.steps[0].t) * eps
        for step in self.steps:
            t = torch.full((len(eps),), step.t, device=eps.device)
            x_0 = self._answer(student, x, t, step, condition)
            x = student.limit(x_0) if step.s is None else _ddim_step(student, x, x_0, t, torch.full_like(t, step.s))
        return x

    def _answer(self, student: Student, x: Tensor, t: Tensor, step: Step, condition: Condition) -> Tensor:
        if isinstance(student, JumpStudent):
            return student(x, t, torch.full_like(t, student.t_min if step.s is None else step.s), condition)
        return student(x, t, condition)


def check_falling(times: Sequence[float], student: Student) -> None:
    """Refuse times that do not fall, or at which a student cannot be asked.

    Raises:
        BootdiffError: if there are such times; the message names one.
    """
    # A table's entry may lie a little above t_max, which moves to where a scheduler can hold it.
    slack = 1 / (student.schedule.num_timesteps - 1)
    for time, before in zip(times, [float("inf"), *times], strict=False):
        if not student.t_min - slack <= time <= student.t_max + slack or time >= before:
            raise BootdiffError(
                f"expected falling times from this student's {student.t_max:g} to {student.t_min:g}, got {time:g}."
            )


def _ddim_step(student: Student, x_t: Tensor, x_0: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """Return x_s (b, *shape), with x_0 limited and the noise that of the answer as it came."""
    alpha_t, sigma_t = (expand(v, x_t) for v in student.schedule.alpha_sigma(t))
    alpha_s, sigma_s = (expand(v, x_t) for v in student.schedule.alpha_sigma(s))
    # Eq. 2, with eps = (x_t − alpha_t x_0) / sigma_t
    return alpha_s * student.limit(x_0) + (sigma_s / sigma_t) * (x_t - alpha_t * x_0)


def halved_steps(student: Student, calls: int) -> Tensor:
    """Return the times at the beginning, in the middle and at the end of a student's steps, (calls, 3) in float32.

    The end of the last step is −1, the image itself. A network that takes whole timesteps only is asked at the
    lower one of two in the middle.
    """
    schedule, table = student.schedule, isinstance(student.schedule, BetaTable)
    last, rows = schedule.num_timesteps - 1, []
    for step in steps_of(student, calls):
        # On a table the image lies one entry before the first one, as in stock DDIM.
        end = step.s if step.s is not None else -1 / last if table else student.t_min
        middle = (step.t + end) / 2
        if table and schedule.integer_timesteps:
            middle = int(middle * last + 1e-6) / last
        rows.append((step.t, max(0.0, middle), -1.0 if step.s is None else step.s))
    return torch.tensor(rows)


def grouped(steps: int, calls: int, t_min: float, t_max: float) -> Tensor:
    """Return the begin and the end of each of the teacher's steps and the end of its group, (steps, 3) in float32.

    An end at the image itself is −1.
    """
    times = [step.t for step in even_steps(steps, t_min, t_max)] + [-1.0]
    size = steps // calls
    return torch.tensor([(times[i], times[i + 1], times[(i // size + 1) * size]) for i in range(steps)])
