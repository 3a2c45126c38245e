"""What a student and its teacher make of the same noises, for the images of a report and of an ablation."""

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
from bootdiff.storage.runs import Run
from bootdiff.students import PathStudent, Student
from bootdiff.students.files import load_student
from bootdiff.teachers import Teacher

#: the number of samples in a row, and the number in a row of large images
COLUMNS, FEW = 10, 4
#: the largest number of values of a sample for which a row is long
SMALL = 2**12
#: the number of points shown of a path, from t_max to t_min
PATH_TIMES = 8
#: the number of parameters above which a teacher is not sampled on a CPU
LARGE = 100_000_000
TEACHER_STEPS = 50
TEACHER = f"Teacher, {TEACHER_STEPS} DDIM steps"


def open_shown(run: Path, teacher: Teacher | None = None) -> Student | None:
    """Return a run's student; None if its samples are no pictures. That of a plain module needs its teacher.

    Raises:
        BootdiffError: if the student cannot be opened.
    """
    student = load_student(Run(run).student_path, teacher)
    return student if is_picture(student.shape) or (student.adapter is not None and student.adapter.latent) else None


def affordable(teacher: Teacher) -> Teacher | None:
    """Return the teacher on the best device; None if it is too large to be sampled on this machine's CPU."""
    device = best_device()
    large = sum(p.numel() for p in teacher.parameters()) > LARGE
    return None if large and device.type == "cpu" else teacher.to(device)


def row_inputs(shape: Sequence[int], conditions: Conditions) -> tuple[Tensor, Condition]:
    """Return a row's noises (b, *shape), those of seed 0, and their conditions, on the best device."""
    columns, device = COLUMNS if math.prod(shape) <= SMALL else FEW, best_device()
    return sample_noise(0, 0, columns, shape).to(device), conditions.listed(0, 0, columns).to(device)


def teacher_samples(teacher: Teacher, eps: Tensor, condition: Condition, low: float, high: float) -> Tensor:
    """Return the teacher's own samples for these noises, made by DDIM steps from time ``high`` to ``low``."""
    return ddim(teacher, eps, trailing_times(TEACHER_STEPS, low, high), condition)


def path_end(teacher: Teacher, eps: Tensor, condition: Condition, low: float, high: float) -> Tensor:
    """Return the exact end, at time ``low``, of the path that the student learned, (b, *shape)."""
    return reference_path(teacher, low, high)(eps, condition)


def path_times(student: PathStudent) -> list[float]:
    """Return the times at which a student's path is shown, from t_max to t_min."""
    return even_times(PATH_TIMES - 1, student.t_min, student.t_max)


def path_images(student: PathStudent, eps: Tensor, condition: Condition) -> Tensor:
    """Return y_t of every noise at ``path_times``, as images (b, PATH_TIMES, c, h, w) on the CPU."""
    images = [student.decode(student.sample(eps, condition, t=t)).cpu() for t in path_times(student)]
    return torch.stack(images, dim=1)
