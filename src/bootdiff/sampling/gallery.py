"""What a student and its teacher make of the same noises: the images of a report and of an ablation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.core.device import best_device
from bootdiff.core.randomness import sample_noise
from bootdiff.data.conditions import Conditions
from bootdiff.data.pictures import is_picture
from bootdiff.samplers.rows import reference_path
from bootdiff.solvers import ddim, even_times, trailing_times
from bootdiff.students import Student
from bootdiff.students.files import load_student
from bootdiff.teachers import Teacher

#: samples in a row; of large images, of which a row has few
COLUMNS, FEW = 10, 4
#: values of a sample up to which a row is long
SMALL = 2**12
#: points of a path, from t_max to t_min
PATH_TIMES = 8
#: parameters of a teacher that is not sampled on a CPU for a picture
LARGE = 100_000_000
TEACHER_STEPS = 50
TEACHER = f"Teacher, {TEACHER_STEPS} DDIM steps"


def open_shown(run: Path) -> Student | None:
    """A run's student; None where its samples are no pictures.

    Raises:
        BootdiffError: if it cannot be opened.
    """
    student = load_student(run / "student-path")
    return student if is_picture(student.shape) or (student.adapter is not None and student.adapter.latent) else None


def affordable(teacher: Teacher) -> Teacher | None:
    """The teacher on the best device; None where it is too large to be sampled on this machine's CPU."""
    device = best_device()
    large = sum(p.numel() for p in teacher.parameters()) > LARGE
    return None if large and device.type == "cpu" else teacher.to(device)


def row_inputs(shape: Sequence[int], conditions: Conditions) -> tuple[Tensor, Condition]:
    """A row's noises, those of seed 0, and their conditions, on the best device."""
    columns, device = COLUMNS if math.prod(shape) <= SMALL else FEW, best_device()
    return sample_noise(0, 0, columns, shape).to(device), conditions.listed(0, 0, columns).to(device)


def teacher_samples(teacher: Teacher, eps: Tensor, condition: Condition, low: float, high: float) -> Tensor:
    """The teacher's own samples over a range of times."""
    return ddim(teacher, eps, trailing_times(TEACHER_STEPS, low, high), condition)


def path_end(teacher: Teacher, eps: Tensor, condition: Condition, low: float, high: float) -> Tensor:
    """The exact end of the path that the student learned."""
    return reference_path(teacher, low, high)(eps, condition)


def path_times(student: Student) -> list[float]:
    """The times at which a student's path is shown, falling."""
    return even_times(PATH_TIMES - 1, student.t_min, student.t_max)


def path_images(student: Student, eps: Tensor, condition: Condition) -> Tensor:
    """y_t of every noise at ``path_times`` as images, (b, PATH_TIMES, c, h, w), on the CPU."""
    images = [student.decode(student.sample(eps, condition, t=t)).cpu() for t in path_times(student)]
    return torch.stack(images, dim=1)
