"""What a look asks of a student besides its images: one probe for each kind of student that can answer it.

A kind names its probes (``Student.probes``). Source: docs/method.md, "Looking without data".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor

from bootdiff.monitoring.noises import Noises, samples_of
from bootdiff.monitoring.path_ends import PathEnds, mean_square
from bootdiff.monitoring.watch_plan import EXACT, STRAIGHT_STEPS
from bootdiff.solvers import ddim_step, noisy, trailing_times
from bootdiff.students import Student


class Asked(NamedTuple):
    """What a probe is given: the student, the ends of the teacher's path, and the noises from which both start."""

    student: Student
    truth: PathEnds
    noises: Noises


def boundary(asked: Asked) -> dict[str, float]:
    """Return the error at t_max, E ‖f(x_T, t_max) − y_theta(eps, t_max)‖² (Eq. 9), within the teacher's limit."""
    student, exact = asked.student, min(EXACT, asked.noises.count)
    edge = samples_of(student, asked.noises, t=student.t_max, first=exact).values
    return {"boundary_error": mean_square(edge - student.limit(asked.truth.starts))}


@torch.no_grad()
def consistency(asked: Asked) -> dict[str, float]:
    """Return E ‖g(x_t, t) − end‖² half way along the teacher's exact path, (b) of a consistency student's answers."""
    student, exact = asked.student, min(EXACT, asked.noises.count)
    half, made = (student.t_min + student.t_max) / 2, []
    device, first = next(student.parameters()).device, 0
    for eps, condition in asked.noises.batches(exact):
        y_t = asked.truth.middles[first : first + len(eps)].to(device)
        t = torch.full((len(eps),), half, device=device)
        x_t = noisy(y_t, eps.to(device), t, student.schedule)
        made.append(student.limit(student(x_t, t, condition.to(device))).cpu())
        first += len(eps)
    return {"consistency_error": mean_square(torch.cat(made) - asked.truth.ends[:exact])}


@torch.no_grad()
def straightness(asked: Asked) -> dict[str, float]:
    """Return how far the student's answers along its own path are from where that ends, E ‖x_0(x_t, t) − end‖².

    It is 0 for a straight path, which one call follows to its end (Liu et al., arXiv 2209.03003).
    """
    student, exact = asked.student, min(EXACT, asked.noises.count)
    device, errors = next(student.parameters()).device, []
    times = trailing_times(STRAIGHT_STEPS, student.t_min, student.t_max)
    for eps, condition in asked.noises.batches(exact):
        x, condition = student.schedule.start_scale(times[0]) * eps.to(device), condition.to(device)
        answers: list[Tensor] = []
        for here, there in zip(times, [*times[1:], student.t_min], strict=True):
            t, s = (torch.full((len(eps),), time, device=device) for time in (here, there))
            answers.append(student(x, t, condition))
            x = ddim_step(x, answers[-1], t, s, student.schedule)
        along = torch.stack(answers, 1)
        errors.append((along - along[:, -1:]).square().flatten(1).mean(1).cpu())
    return {"straightness": float(torch.cat(errors).double().mean())}


#: the probes by name
PROBES: Mapping[str, Callable[[Asked], dict[str, float]]] = {
    "boundary": boundary,
    "consistency": consistency,
    "straightness": straightness,
}


def probed(student: Student, truth: PathEnds, noises: Noises) -> dict[str, float]:
    """Return the figures of all of a student's probes, by name."""
    asked, figures = Asked(student, truth, noises), cast("dict[str, float]", {})
    for name in student.probes:
        figures.update(PROBES[name](asked))
    return figures
