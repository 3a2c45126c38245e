"""Zero-shot editing tasks: which part of a picture is kept, and by whom the rest is made.

Source: Song et al., arXiv 2303.01469, Section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bootdiff.core.errors import BootdiffError, choose
from bootdiff.samplers.consistency import consistency_times, most_calls
from bootdiff.samplers.edit import Edited
from bootdiff.samplers.operators import Grey, LowPass, Operator, Strokes
from bootdiff.samplers.refine import EDITED, Kept, level_of, open_kept
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


def edited(name: str, task: Task, calls: int | None, times: Sequence[float] | None, teacher: Teacher | None) -> Edited:
    """Return a consistency student's sampler for a task.

    Args:
        name: a run or an unfolded student.
        calls, times: the number of calls, or their times; None for ``CALLS`` calls, or as many as the student has.
        teacher: that of a student of a plain module.

    Raises:
        BootdiffError: for a student of another kind.
    """
    student = load_student(StudentFolder.unfolded(name).path, teacher)
    if not isinstance(student, ConsistencyStudent):
        raise BootdiffError(
            f"--edit-task asks a consistency student several times, and {name} is a {student.kind} student; its "
            "teacher can do the task after it: give --refine STEPS, too."
        )
    if times is None:
        most = most_calls(student)
        own = consistency_times(student, calls or min(CALLS, most or CALLS))
        if task.word == "strokes":
            start = level_of(student.schedule, EDITED) if task.level is None else task.level
            own = [time for time in own if time <= start] or [own[-1]]
        times = own
    kept = task.kept(tuple(student.shape), student.adapter)
    return Edited(student, times, kept.sample, kept.operator)
