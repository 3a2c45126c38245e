"""Asking a new student one small question, to see that it can learn: of a module that somebody else wrote."""

from __future__ import annotations

import torch

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError, first_line
from bootdiff.students.base import Student
from bootdiff.system.out_of_memory import let_pass
from bootdiff.teachers import Teacher


def check_learns(student: Student, teacher: Teacher, t: float, condition: Condition) -> None:
    """Ask a student for two answers, and refuse one that fails, or whose weights no gradient reaches.

    Args:
        t: the time of the question.
        condition: the condition of one sample.

    Raises:
        BootdiffError: if its network fails, or answers without a gradient.
    """
    device = next((p.device for p in student.network.parameters()), torch.device("cpu"))
    timestep = teacher.schedule.timestep(torch.full((2,), t, device=device))
    x = teacher.schedule.start_scale(t) * torch.ones(2, *teacher.shape, device=device)
    try:
        answer = student.network(x, timestep, timestep, condition.repeat(2).to(device))
    except BootdiffError:
        raise
    except (Exception, SystemExit) as error:  # somebody else's network may raise anything
        let_pass(error)
        raise BootdiffError(
            f"the network of {teacher.name} fails on two samples of shape {tuple(teacher.shape)} ({first_line(error)})."
        ) from error
    if not answer.is_floating_point() or not answer.requires_grad:
        raise BootdiffError(
            f"no gradient reaches the weights of {teacher.name}, so its student cannot learn; its forward should "
            "return real numbers, and be free of no_grad, inference_mode and detach."
        )
