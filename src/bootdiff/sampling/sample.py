"""Drawing samples of a student, or of a base and the student that enlarges its images."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bootdiff.core.errors import BootdiffError
from bootdiff.data.conditions import Conditions
from bootdiff.samplers.base import Sampler, batch_for, sampled
from bootdiff.samplers.choice import ANY, Choice, conditions_for
from bootdiff.samplers.consistency import MultistepConsistency
from bootdiff.samplers.several import check_calls, times_in_words
from bootdiff.samplers.students import PathSampler
from bootdiff.sampling.belonging import check_taught
from bootdiff.sampling.cascade import cascade, check_upscales
from bootdiff.sampling.editing import Task, edited
from bootdiff.sampling.finish import Finish, describe_finish, refined
from bootdiff.sampling.layouts import Canvas, Interpolation, Layout, Plain, Work
from bootdiff.sampling.opening import itself, open_taught, run_conditions
from bootdiff.students import PathStudent
from bootdiff.students.card import StudentCard
from bootdiff.students.consistency import ConsistencyStudent
from bootdiff.students.files import card_of, load_student
from bootdiff.students.folder import StudentFolder
from bootdiff.system.out_of_memory import told_when_out_of_memory
from bootdiff.system.progress import progress
from bootdiff.teachers import Teacher


@dataclass(frozen=True)
class Wanted:
    """The samples that the user wants.

    Args:
        num, seed: the number of samples, and the seed: sample i starts from the noise of seed + i.
        batch_size: the largest number of samples in a network call.
        choice: the prompts, classes and guidance weight.
        layout: the layout, which says what noise and condition each sample has.
        finish: how the teacher finishes the images; None leaves them as they are.
        calls: the number of the student's calls for an image; None for its usual number.
        teacher: who finishes, if it is not the student's own teacher: a teacher, or its name. The student of a plain
            module always needs the teacher itself.
        task: an editing task of a consistency student; with ``finish`` its teacher does it instead.
    """

    num: int = 16
    seed: int = 0
    batch_size: int = 256
    choice: Choice = ANY
    layout: Layout = field(default_factory=Plain)
    finish: Finish | None = None
    calls: int | None = None
    teacher: str | Teacher | None = None
    task: Task | None = None

    def __post_init__(self) -> None:
        if self.calls is not None:
            check_calls(self.calls)
        if self.num < 1 or self.batch_size < 1 or self.seed < 0:
            raise BootdiffError(
                f"samples expect num and batch_size from 1 and seed from 0 on, got num {self.num}, batch_size "
                f"{self.batch_size}, seed {self.seed}."
            )


#: the default: sixteen samples of whatever the student learned
PLAIN = Wanted()


@dataclass(frozen=True)
class Drawing:
    """Samples that are drawn only when they are asked for.

    Args:
        shape: the shape of an image, (c, h, w); that of a plain module's samples may be any.
        count: the number of all images.
        columns: the number of columns of their grid; None where any number will do.
        told: what the pictures cannot show, one line for each fact.
        own: whether they are a plain module's samples, whose scale may be any.
        batches: the images, as batches (b, *shape); they can be drawn once. A pipeline's are in [−1, 1].
    """

    shape: tuple[int, ...]
    count: int
    columns: int | None
    told: Sequence[str]
    batches: Iterator[torch.Tensor]
    own: bool = False


@dataclass(frozen=True)
class Samples:
    """Samples that were drawn.

    Args:
        images: the images, (n, c, h, w) in [−1, 1]; a plain module's samples, (n, *shape), are on their own scale.
        columns: the number of columns of their grid; None where any number will do.
        told: what the pictures cannot show, one line for each fact.
    """

    images: torch.Tensor
    columns: int | None
    told: Sequence[str]


def draw_samples(
    students: str | Path | Sequence[str | Path], wanted: Wanted = PLAIN, times: Sequence[float] | None = None
) -> Samples:
    """Draw samples of a student; a second student enlarges the first one's images.

    Args:
        students: a run or a student folder, or a base and its super-resolution student.
        wanted: how many samples there are to be, and of what.
        times: times of the student's path; if given, each noise gets one sample for each time. A consistency student
            is called at these times, one after the other, and makes one sample of each noise.

    Raises:
        BootdiffError: if students, prompts or classes do not fit.
    """
    drawing = plan_samples(students, wanted, times)
    with told_when_out_of_memory(f"lower num (now {wanted.num})"):
        return Samples(torch.cat(list(drawing.batches)), drawing.columns, drawing.told)


def plan_samples(
    students: str | Path | Sequence[str | Path], wanted: Wanted = PLAIN, times: Sequence[float] | None = None
) -> Drawing:
    """Return what ``draw_samples`` would draw, without drawing anything yet.

    Raises:
        BootdiffError: if students, prompts or classes do not fit.
    """
    if not isinstance(students, str | Path | Sequence):
        raise BootdiffError(f"expected the folder of a run or a student, got a {type(students).__name__}.")
    names = [str(students)] if isinstance(students, str | Path) else [str(student) for student in students]
    if not 1 <= len(names) <= 2:
        raise BootdiffError(f"expected a student, or a base and its super-resolution student, got {len(names)}.")
    name, base = names[-1], names[0] if len(names) == 2 else None
    if times is not None and not times:
        raise BootdiffError("expected times of the student's path, got none.")
    if times is not None and base is not None:
        raise BootdiffError("--times shows one student's path; name one of the two.")
    if (wanted.calls or 1) > 1 and (times is not None or wanted.finish is not None):
        other = "--times names the times of every call"
        if times is None:
            other = "--refine goes on from an image that was made in one call"
        raise BootdiffError(f"{other}, and --calls says {wanted.calls}; give one of them.")
    if wanted.task is not None and wanted.finish is None:
        if base is not None:
            raise BootdiffError("--edit-task is one student's; name one of the two.")
        own = edited(name, wanted.task, wanted.calls, times, itself(wanted.teacher))
        samplers: list[Sampler] = [own]
        card = card_of(own.student)
    else:
        samplers, card = _open(name, times, wanted.calls, itself(wanted.teacher))
    if isinstance(wanted.teacher, str) and wanted.finish is None and card.pipeline is not None:
        raise BootdiffError("--teacher says who finishes an image; give --refine STEPS, too.")
    conditions = _conditions(name, base, samplers[0], card, wanted.choice)
    if wanted.finish is not None:
        if times is not None:
            raise BootdiffError("--times shows the student's path and --refine finishes its image; give one of them.")
        samplers = [refined(name, samplers[0], card, wanted.choice.weight, wanted.finish, wanted.teacher)]
    named = wanted.choice.prompts if wanted.choice.prompts is not None else wanted.choice.classes
    size = min(wanted.batch_size, batch_for(samplers[0].shape))
    canvas = Canvas(samplers[0], conditions, wanted.num, wanted.seed, len(named or ()), size)
    total, columns = wanted.layout.shape(canvas)
    return Drawing(
        shape=image_shape(samplers[0]),
        count=total * len(samplers),
        columns=columns if times is None or not isinstance(samplers[0], PathSampler) else len(samplers),
        told=list(describe(card, samplers[0], wanted)),
        batches=_within_memory(drawn(samplers, wanted.layout.work(canvas), total), size, wanted.num),
        own=samplers[0].adapter is None,
    )


def _within_memory(batches: Iterator[torch.Tensor], size: int, num: int) -> Iterator[torch.Tensor]:
    with told_when_out_of_memory(f"lower --batch-size (it draws {size} at a time) or --num (now {num})"):
        yield from batches


def _open(
    name: str, times: Sequence[float] | None, calls: int | None = None, teacher: Teacher | None = None
) -> tuple[list[Sampler], StudentCard]:
    """Return one sampler, or one for each time of the path, and the student's card."""
    if times is None:
        sampler, card = open_taught(name, teacher, calls)
        return [sampler], card
    folder = StudentFolder.unfolded(name)
    if teacher is not None:
        check_taught(name, folder.card, teacher)
    student = load_student(folder.path, teacher)
    if isinstance(student, ConsistencyStudent):
        return [MultistepConsistency(student, times)], card_of(student)
    if not isinstance(student, PathStudent):
        raise BootdiffError(
            f"--times shows the path of a path student, or calls a consistency student at these times; {name} is a "
            f"{student.kind} student."
        )
    outside = [t for t in times if not student.t_min <= t <= student.t_max]
    if outside:
        raise BootdiffError(f"--times {outside[0]:g} is outside this student's [{student.t_min:g}, {student.t_max:g}].")
    return [PathSampler(student, t) for t in times], card_of(student)


def describe(card: StudentCard, sampler: Sampler, wanted: Wanted) -> Iterator[str]:
    """Yield lines on what the pictures cannot show.

    That is the order of prompts or classes, and the guidance weight if the user named none.
    """
    choice, learned = wanted.choice, card.weight
    yield from describe_finish(sampler)
    calls = int(getattr(sampler, "calls", 1))
    if isinstance(sampler, MultistepConsistency) and wanted.calls is None and calls == len(sampler.times) > 0:
        yield f"{times_in_words(calls)} an image, at t = {', '.join(f'{t:.3g}' for t in sampler.times)}"
    elif calls > 1:
        yield f"{calls} calls an image"
    elif isinstance(sampler, PathSampler) and sampler.student.evaluations > 1:
        yield f"one pass an image, which counts as {sampler.student.evaluations} calls"
    words = choice.prompts if choice.prompts is not None else choice.classes
    if words is not None and len(words) > 1:
        yield f"{wanted.layout.order}: {textwrap.shorten('; '.join(map(str, words)), 400, placeholder=' …')}"
    takes = sampler.adapter.takes if sampler.adapter is not None else "nothing"
    if words is None and takes != "nothing":
        own = card.conditions.labels
        known = f" ({textwrap.shorten(', '.join(map(str, own)), 60, placeholder=' …')})" if own else ""
        which = "the first of its" if isinstance(wanted.layout, Interpolation) else "its"
        option = "--class" if takes == "classes" else "--prompt"
        learned_them = takes == "prompts" or own is not None
        yield f"{which} own {takes}{known}{', as it learned them' if learned_them else ''}; choose with {option}."
    if learned.is_range and choice.weight is None and card.folded_weight is None:
        yield (
            f"guidance weight {sampler.told_weight(None):g}, the middle of {learned.low:g} to {learned.high:g}; "
            "choose with --guidance-scale."
        )


def _conditions(name: str, base: str | None, sampler: Sampler, card: StudentCard, choice: Choice) -> Conditions:
    if base is None:
        return run_conditions(name, sampler, card, choice)
    check_upscales(sampler, base)
    if choice.prompts is None:
        raise BootdiffError("a cascade is conditioned on text; give --prompt TEXT or --prompts FILE.")
    return cascade(base, sampler, card, conditions_for(sampler, card, choice), choice.prompts)


def drawn(samplers: Sequence[Sampler], work: Work, total: int) -> Iterator[torch.Tensor]:
    """Yield samples as images in batches, (b · samplers, c, h, w); each noise has one for every sampler."""
    first = samplers[0]
    adapter = first.adapter if first.adapter is not None and first.adapter.latent else None
    with progress("sampling", total, 0, total > 4 * batch_for(first.shape)) as bar:
        for noise, condition in work:
            eps = noise.eps
            rows = [sampled(sampler, noise, condition.to(eps.device)) for sampler in samplers]
            images = rows if adapter is None else [adapter.decode(row) for row in rows]
            yield torch.stack(images, dim=1).flatten(0, 1).cpu()
            bar.advance(len(eps))


def image_shape(sampler: Sampler) -> tuple[int, ...]:
    """Return the shape, without the batch, of the images that a sampler's samples become.

    A decoder's images have three channels at most.
    """
    if sampler.adapter is not None and sampler.adapter.latent:
        return 3, *(side * sampler.adapter.factor for side in sampler.shape[-2:])
    return tuple(sampler.shape)
