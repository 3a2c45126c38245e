"""Zero-shot editing tasks: which part of a picture is kept, and by whom the rest is made.

Source: Song et al., arXiv 2303.01469, Section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bootdiff.core.errors import BootdiffError, choose
from bootdiff.samplers.consistency import consistency_times, most_calls, possible_times
from bootdiff.samplers.edit import Edited
from bootdiff.samplers.operators import Grey, LowPass, Operator, Strokes
from bootdiff.samplers.refine import EDITED, Kept, level_of, open_kept
from bootdiff.sampling.belonging import check_taught
from bootdiff.solvers import trailing_times
from bootdiff.students.consistency import ConsistencyStudent
from bootdiff.students.files import load_student
from bootdiff.students.folder import StudentFolder
from bootdiff.teachers import Teacher
from bootdiff.teachers.adapters.base import Adapter

#: the tasks by their words
TASKS = ("inpaint", "colourise", "super-resolution", "strokes")
#: the calls of a consistency student where none are asked for, and the side of the blocks that are enlarged
CALLS, FACTOR = 8, 2


@dataclass(frozen=True)
class Task:
    """An editing task as the user asks for it.

    Args:
        word: one of ``TASKS``.
        image: the picture.
        mask: for inpainting: white where it is filled.
        factor: for super-resolution: the side of a block of pixels whose mean is kept.
        level: for strokes: the time at which sampling starts; None is the one at which sigma / alpha is 2.
    """

    word: str
    image: Path
    mask: Path | None = None
    factor: int | None = None
    level: float | None = None

    def kept(self, shape: tuple[int, ...], adapter: Adapter | None) -> Kept:
        """Return the picture, and what samples must keep of it.

        Raises:
            BootdiffError: if the picture cannot be opened, or the task means nothing to samples of this shape.
        """
        found = open_kept(self.image, self.mask, shape, adapter)
        kept = Kept(found.sample, found.operator if self.word == "inpaint" else self.operator)
        if adapter is not None and adapter.latent and isinstance(kept.operator, Grey | LowPass):
            raise BootdiffError(f"{self.word} keeps part of an image's pixels, and this student makes latents.")
        kept.operator.agreed(torch.zeros(1, *shape), kept.sample)  # says what does not fit
        return kept

    @property
    def operator(self) -> Operator:
        """Return what is kept, where no mask says it."""
        if self.word == "colourise":
            return Grey()
        if self.word == "super-resolution":
            return LowPass(FACTOR if self.factor is None else self.factor)
        return Strokes()


def task_of(
    word: str | None, image: Path | None, mask: Path | None, factor: int | None, level: float | None = None
) -> Task | None:
    """Return the task that the options say together; None where no task is named.

    Raises:
        BootdiffError: for an unknown task, one without what it needs, or an option that it does not read.
    """
    if word is None:
        if factor is not None:
            raise BootdiffError("--factor is of --edit-task super-resolution; name the task, too.")
        return None
    choose(word, TASKS, "--edit-task")
    if image is None:
        raise BootdiffError(f"--edit-task {word} needs a picture; give --image FILE.")
    if (mask is None) == (word == "inpaint"):
        raise BootdiffError(
            "--edit-task inpaint needs --mask FILE, white where the picture is filled."
            if mask is None
            else f"--mask is of --edit-task inpaint, and the task is {word}; leave it out."
        )
    for option, value, whose in (("--factor", factor, "super-resolution"), ("--refine-from", level, "strokes")):
        if value is not None and word != whose:
            raise BootdiffError(f"{option} is of --edit-task {whose}, and the task is {word}; leave it out.")
    return Task(word, image, mask, factor, level)


def stroke_times(student: ConsistencyStudent, task: Task, calls: int | None) -> Sequence[float]:
    """Return falling times from the task's level on, at which a student may be called.

    Raises:
        BootdiffError: if the level is outside the student's times, or they are fewer than the calls.
    """
    start, low = level_of(student.schedule, EDITED) if task.level is None else task.level, student.t_min
    if not low < start <= 1:
        raise BootdiffError(f"--refine-from {start:g}: expected a time above {low:g}, up to {student.t_max:.3g}.")
    start, possible = min(start, student.t_max), possible_times(student)
    if possible is None:
        return trailing_times(calls or CALLS, low, start)[: calls or CALLS]
    below = [time for time in possible if low < time <= start] or [min(time for time in possible if time > low)]
    if (calls or 1) > len(below):
        raise BootdiffError(
            f"{calls} calls are more than the {len(below)} that this student's times from t = {start:.3g} allow."
        )
    count = calls or min(CALLS, len(below))
    return [below[number * len(below) // count] for number in range(count)]


def edited(name: str, task: Task, calls: int | None, times: Sequence[float] | None, teacher: Teacher | None) -> Edited:
    """Return a consistency student's sampler for a task.

    Args:
        name: a run or an unfolded student.
        calls, times: the number of calls, or their times; None for ``CALLS`` calls, or as many as the student has.
        teacher: that of a student of a plain module.

    Raises:
        BootdiffError: for a student of another kind.
    """
    folder = StudentFolder.unfolded(name)
    if teacher is not None:
        check_taught(name, folder.card, teacher)
    student = load_student(folder.path, teacher)
    if not isinstance(student, ConsistencyStudent):
        raise BootdiffError(
            f"--edit-task asks a consistency student several times, and {name} is a {student.kind} student; its "
            "teacher can do the task after it: give --refine STEPS, too."
        )
    if times is not None and task.level is not None:
        raise BootdiffError("--refine-from says where --edit-task strokes starts, and --times does, too; give one.")
    if times is None and task.word == "strokes":
        times = stroke_times(student, task, calls)
    elif times is None:
        most = most_calls(student)
        times = consistency_times(student, calls or min(CALLS, most or CALLS))
    kept = task.kept(tuple(student.shape), student.adapter)
    return Edited(student, times, kept.sample, kept.operator)
