"""Asking a teacher one small question before anything is built on its answers."""

from __future__ import annotations

import torch

from bootdiff.core.condition import Condition
from bootdiff.core.device import device_of
from bootdiff.core.errors import BootdiffError, first_line
from bootdiff.system.out_of_memory import let_pass
from bootdiff.teachers.base import Teacher
from bootdiff.teachers.pipeline import blank_condition


@torch.no_grad()
def check_answers(teacher: Teacher, t: float | None = None, condition: Condition | None = None) -> None:
    """Ask a teacher for one x_0, and refuse a teacher that cannot answer.

    Args:
        t: the time of the question, in [0, 1]; t_max of the teacher's range where none is given.
        condition: the condition of the question, a batch of one; zeros in the teacher's shapes where none is given.

    Raises:
        BootdiffError: if its network fails, answers in another shape, or gives values that are not finite.
    """
    device = device_of(teacher)  # wherever the caller has put it
    time = torch.full((1,), teacher.t_range[1] if t is None else t, device=device)
    asked = (blank_condition(teacher, 1) if condition is None else condition).to(device)
    x_T = teacher.schedule.start_scale(float(time)) * torch.ones(1, *teacher.shape, device=device)
    try:
        answer = teacher.x0(x_T, time, asked)
    except BootdiffError:
        raise
    except (Exception, SystemExit) as error:  # a network may raise anything; each means that it does not fit
        let_pass(error)
        raise BootdiffError(
            f"the network of {teacher.name} fails on an image of shape {tuple(teacher.shape)} ({first_line(error)}); "
            "check its config, or the shape given."
        ) from error
    if not bool(torch.isfinite(answer).all()):
        raise BootdiffError(
            f"the network of {teacher.name} gives values that are not finite at t = {float(time):g}; its weights or "
            "its config are damaged."
        )
