"""How the teacher finishes a student's images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bootdiff.core.condition import Condition
from bootdiff.core.device import best_device
from bootdiff.core.errors import BootdiffError, shown
from bootdiff.data.classes import read_classes
from bootdiff.data.prompts import check_words
from bootdiff.samplers.base import Sampler
from bootdiff.samplers.choice import Choice, conditions_for
from bootdiff.samplers.refine import EDITED, REFINED, Kept, Refined, level_of, open_kept
from bootdiff.sampling.editing import Task
from bootdiff.sampling.opening import teacher_beside
from bootdiff.students.card import StudentCard
from bootdiff.teachers import Teacher


@dataclass(frozen=True)
class Finish:
    """How the user wants images to be finished by the teacher.

    Args:
        steps: the number of the teacher's steps.
        level: the time at which the teacher takes over. None is the time at which sigma / alpha is 1/3, or 2 for an
            edit or a picture.
        edit: another prompt or class for the teacher.
        image, mask: a picture to start from, and the part of it that is filled; without a mask all of it may change.
        task: what else of a picture is kept.
    """

    steps: int
    level: float | None = None
    edit: str | None = None
    image: Path | None = None
    mask: Path | None = None
    task: Task | None = None


def finish_of(
    steps: int | None,
    level: float | None,
    edit: str | None,
    image: Path | None,
    mask: Path | None,
    task: Task | None = None,
) -> Finish | None:
    """Return what the options say together; None if the student's images are to be left as they are.

    Raises:
        BootdiffError: if an option means nothing without another; the message names both.
    """
    others = {"--refine-from": level, "--edit": edit, "--image": image, "--mask": mask}
    asked = [name for name, value in others.items() if value is not None]
    if steps is None:
        if task is not None:
            asked = [name for name in asked if name == "--edit"]
        if asked:
            raise BootdiffError(f"{asked[0]} says how the teacher finishes an image; give --refine STEPS, too.")
        return None
    if mask is not None and image is None:
        raise BootdiffError("--mask is the part of a picture that is filled in; give --image FILE, too.")
    return Finish(steps, level, edit, image, mask, task)


def refined(
    student: str,
    sampler: Sampler,
    card: StudentCard,
    weight: float | None,
    finish: Finish,
    named: str | Teacher | None = None,
) -> Refined:
    """Return the student followed by its teacher, as one sampler; by default the teacher is the student's own.

    Raises:
        BootdiffError: if the teacher cannot be found, or what was asked does not fit it.
    """
    teacher = teacher_beside(student, sampler, card, named, weight=weight).to(best_device())
    kept: Kept | None = None
    if finish.task is not None:
        kept = finish.task.kept(tuple(sampler.shape), sampler.adapter)
    elif finish.image is not None:
        kept = open_kept(finish.image, finish.mask, tuple(sampler.shape), sampler.adapter)
    changed = finish.edit is not None or kept is not None
    level = level_of(teacher.schedule, EDITED if changed else REFINED) if finish.level is None else finish.level
    asked = None if finish.edit is None else _edit(sampler, card, finish.edit)
    return Refined(sampler, teacher, finish.steps, level, kept, asked)


def _edit(sampler: Sampler, card: StudentCard, words: str) -> Condition:
    takes = sampler.adapter.takes if sampler.adapter is not None else "nothing"
    if takes == "nothing":
        raise BootdiffError("--edit: this student is conditioned on nothing; leave it out.")
    if takes == "classes" and not words.strip().isdigit():
        raise BootdiffError(f"--edit expects one class of this student, such as 3, got {shown(words)}.")
    check_words(words, "--edit")
    choice = Choice(classes=read_classes(words)) if takes == "classes" else Choice(prompts=[words])
    listed = conditions_for(sampler, card, choice).listed(0, 0, 1)
    return Condition({name: value for name, value in listed.items() if name != "guidance"})


def describe_finish(sampler: Sampler) -> Iterator[str]:
    """Yield a line that says how many calls an image takes, and from what time the teacher went on."""
    if isinstance(sampler, Refined):
        own = 0 if sampler.kept is not None and sampler.kept.is_start else 1
        yield f"{sampler.steps + own} calls an image: the teacher's {sampler.steps} from t = {sampler.level:.3g}"
