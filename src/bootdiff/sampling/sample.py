"""Samples of a student, or of a base and the student that enlarges its images."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from bootdiff.core.errors import BootdiffError
from bootdiff.data.conditions import Conditions
from bootdiff.data.pictures import is_picture
from bootdiff.samplers.base import Sampler, batch_for
from bootdiff.samplers.choice import ANY, Choice, conditions_for
from bootdiff.samplers.students import PathSampler, open_student
from bootdiff.sampling.cascade import cascade, check_upscales
from bootdiff.sampling.finish import Finish, describe_finish, refined
from bootdiff.sampling.layouts import Canvas, Interpolation, Layout, Plain, Work
from bootdiff.sampling.opening import run_conditions
from bootdiff.students.card import StudentCard
from bootdiff.students.files import card_of, load_student
from bootdiff.students.folder import StudentFolder
from bootdiff.system.out_of_memory import told_when_out_of_memory
from bootdiff.system.progress import progress


@dataclass(frozen=True)
class Wanted:
    """What to sample.

    Args:
        num, seed: sample i starts from the noise of seed + i.
        batch_size: samples a network call.
        choice: of prompts, classes and guidance weight.
        layout: which noise and condition each sample has.
        finish: what the teacher does after the student.
    """

    num: int = 16
    seed: int = 0
    batch_size: int = 256
    choice: Choice = ANY
    layout: Layout = field(default_factory=Plain)
    finish: Finish | None = None


#: sixteen samples of whatever the student learned
PLAIN = Wanted()


@dataclass(frozen=True)
class Samples:
    """What was drawn.

    Args:
        images: (n, c, h, w) in [−1, 1].
        columns: of a grid; None where any number will do.
        told: what the pictures cannot say, a line each.
    """

    images: torch.Tensor
    columns: int | None
    told: Sequence[str]


def draw_samples(students: Sequence[str], wanted: Wanted = PLAIN, times: Sequence[float] | None = None) -> Samples:
    """Draw samples of a student; a second student enlarges the first one's images.

    Args:
        students: a run or a student folder, or a base and its super-resolution student.
        wanted: how many samples of what.
        times: of the student's path, instead of its images: for each noise one sample a time.

    Raises:
        BootdiffError: for students or words that do not fit.
    """
    if len(students) > 2:
        raise BootdiffError(f"expected a student, or a base and its super-resolution student, got {len(students)}.")
    name, base = students[-1], students[0] if len(students) == 2 else None
    if times is not None and base is not None:
        raise BootdiffError("--times shows one student's path; name one of the two.")
    samplers, card = _open(name, times)
    conditions = _conditions(name, base, samplers[0], card, wanted.choice)
    if wanted.finish is not None:
        if times is not None:
            raise BootdiffError("--times shows the student's path and --refine finishes its image; give one of them.")
        samplers = [refined(name, samplers[0], card, wanted.choice.weight, wanted.finish)]
    named = wanted.choice.prompts if wanted.choice.prompts is not None else wanted.choice.classes
    size = min(wanted.batch_size, batch_for(samplers[0].shape))
    canvas = Canvas(samplers[0], conditions, wanted.num, wanted.seed, len(named or ()), size)
    total, columns = wanted.layout.shape(canvas)
    with told_when_out_of_memory(f"lower --batch-size (it draws {size} at a time) or --num (now {wanted.num})"):
        made = draw(samplers, wanted.layout.work(canvas), total)
    if not is_picture(made.shape[1:]):
        raise BootdiffError(f"samples of shape {tuple(made.shape[1:])} are no pictures; sample from Python instead.")
    return Samples(made, columns if times is None else len(samplers), list(describe(card, samplers[0], wanted)))


def _open(name: str, times: Sequence[float] | None) -> tuple[list[Sampler], StudentCard]:
    """One sampler, or one for each time of the path."""
    if times is None:
        sampler, card = open_student(name)
        return [sampler], card
    student = load_student(StudentFolder.unfolded(name).path)
    outside = [t for t in times if not student.t_min <= t <= student.t_max]
    if outside:
        raise BootdiffError(f"--times {outside[0]:g} is outside this student's [{student.t_min:g}, {student.t_max:g}].")
    return [PathSampler(student, t) for t in times], card_of(student)


def describe(card: StudentCard, sampler: Sampler, wanted: Wanted) -> Iterator[str]:
    """What the pictures cannot say: the order of words, and the guidance weight where the user named none."""
    choice, learned = wanted.choice, card.weight
    yield from describe_finish(sampler)
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


def draw(samplers: Sequence[Sampler], work: Work, total: int) -> torch.Tensor:
    """All samples as images, (n · samplers, c, h, w): of each noise one for every sampler."""
    first = samplers[0]
    adapter = first.adapter if first.adapter is not None and first.adapter.latent else None
    made = []
    with progress("sampling", total, 0, total > 4 * batch_for(first.shape)) as bar:
        for eps, condition in work:
            rows = [sampler(eps, condition.to(eps.device)) for sampler in samplers]
            images = rows if adapter is None else [adapter.decode(row) for row in rows]
            made.append(torch.stack(images, dim=1).flatten(0, 1).cpu())
            bar.advance(len(eps))
    return torch.cat(made)
