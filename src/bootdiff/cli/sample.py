"""``bootdiff sample``."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bootdiff.cli.refine import Finish, describe_finish, refined
from bootdiff.cli.words import read_times
from bootdiff.core.errors import BootdiffError
from bootdiff.data.conditions import Conditions
from bootdiff.data.pictures import grid, is_picture, to_image
from bootdiff.samplers.base import Sampler, batch_for
from bootdiff.samplers.choice import ANY, Choice, conditions_for
from bootdiff.samplers.students import PathSampler, open_student
from bootdiff.sampling.layouts import Canvas, Interpolation, Layout, Plain, Work
from bootdiff.sampling.opening import cascade, check_upscales, run_conditions
from bootdiff.storage.files import write_whole
from bootdiff.students.files import load_student, path_folder, student_facts
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


def run_sample(students: Sequence[str], wanted: Wanted, times: str | None, output: Path) -> None:
    """Draw samples and save them as a grid or as files; a second student enlarges the first one's images.

    Raises:
        BootdiffError: for students, words or an output that do not fit.
    """
    if len(students) > 2:
        raise BootdiffError(f"expected a student, or a base and its super-resolution student, got {len(students)}.")
    check_output(output)
    name, base = students[-1], students[0] if len(students) == 2 else None
    if times is not None and base is not None:
        raise BootdiffError("--times shows one student's path; name one of the two.")
    if times is not None:
        student = load_student(path_folder(Path(name)))
        moments = read_times(times)
        outside = [t for t in moments if not student.t_min <= t <= student.t_max]
        if outside:
            raise BootdiffError(
                f"--times {outside[0]:g} is outside this student's [{student.t_min:g}, {student.t_max:g}]."
            )
        samplers: list[Sampler] = [PathSampler(student, t) for t in moments]
        facts = student_facts(student)
    else:
        sampler, facts = open_student(name)
        samplers = [sampler]
    conditions = _conditions(name, base, samplers[0], facts, wanted.choice)
    if wanted.finish is not None:
        if times is not None:
            raise BootdiffError("--times shows the student's path and --refine finishes its image; give one of them.")
        samplers = [refined(name, samplers[0], facts, wanted.choice.weight, wanted.finish)]
    named = wanted.choice.prompts if wanted.choice.prompts is not None else wanted.choice.classes
    size = min(wanted.batch_size, batch_for(samplers[0].shape))
    canvas = Canvas(samplers[0], conditions, wanted.num, wanted.seed, len(named or ()), size)
    total, columns = wanted.layout.shape(canvas)
    with told_when_out_of_memory(f"lower --batch-size (it draws {size} at a time) or --num (now {wanted.num})"):
        made = draw(samplers, wanted.layout.work(canvas), total)
    if not is_picture(made.shape[1:]):
        raise BootdiffError(f"samples of shape {tuple(made.shape[1:])} are no pictures; sample from Python instead.")
    save_images(made, output, len(samplers) if times is not None else columns)
    print(f"{len(made)} images: {output}")
    for line in describe(facts, samplers[0], wanted):
        print(line)


def describe(facts: Mapping[str, Any], sampler: Sampler, wanted: Wanted) -> Iterator[str]:
    """What the pictures cannot say: the order of words, and the guidance weight where the user named none."""
    choice, learned = wanted.choice, facts.get("guidance")
    yield from describe_finish(sampler)
    words = choice.prompts if choice.prompts is not None else choice.classes
    if words is not None and len(words) > 1:
        yield f"{wanted.layout.order}: {textwrap.shorten('; '.join(map(str, words)), 400, placeholder=' …')}"
    takes = sampler.adapter.takes if sampler.adapter is not None else "nothing"
    if words is None and takes != "nothing":
        own = facts.get("conditions", {}).get("labels")
        known = f" ({textwrap.shorten(', '.join(map(str, own)), 60, placeholder=' …')})" if own else ""
        which = "the first of its" if isinstance(wanted.layout, Interpolation) else "its"
        option = "--class" if takes == "classes" else "--prompt"
        learned_them = takes == "prompts" or own is not None
        yield f"{which} own {takes}{known}{', as it learned them' if learned_them else ''}; choose with {option}."
    if isinstance(learned, list) and choice.weight is None and "folded_weight" not in facts:
        yield (
            f"guidance weight {sampler.told_weight(None):g}, the middle of {learned[0]:g} to {learned[1]:g}; "
            "choose with --guidance-scale."
        )


def _conditions(name: str, base: str | None, sampler: Sampler, facts: dict[str, Any], choice: Choice) -> Conditions:
    if base is None:
        return run_conditions(name, sampler, facts, choice)
    check_upscales(sampler, base)
    if choice.prompts is None:
        raise BootdiffError("a cascade is conditioned on text; give --prompt TEXT or --prompts FILE.")
    return cascade(base, sampler, facts, conditions_for(sampler, facts, choice), choice.prompts)


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


def check_output(output: Path) -> None:
    """Refuse a place that images cannot go to, before they are made.

    Raises:
        BootdiffError: for another kind of file, or a folder that holds other files.
    """
    if output.suffix.lower() == ".png":
        return
    if output.suffix:
        raise BootdiffError(f"--output {output}: expected a file that ends in .png, or a folder.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise BootdiffError(f"{output} exists and holds other files; choose a new folder.")


def save_images(images: torch.Tensor, output: Path, columns: int | None) -> None:
    """A grid where ``output`` ends in .png, else a folder with one file a sample."""
    if output.suffix.lower() == ".png":
        write_whole(output, grid(images, columns).save)
        return

    def write(folder: Path) -> None:
        folder.mkdir()
        for i, image in enumerate(images):
            to_image(image).save(folder / f"{i:05d}.png")

    write_whole(output, write)
