"""``bootdiff sample``."""

from __future__ import annotations

import math
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bootdiff.cli.layouts import Canvas, Interpolation, Layout, Plain, Work
from bootdiff.cli.refine import Finish, describe_finish, refined
from bootdiff.cli.words import read_times
from bootdiff.data.conditions import Conditions
from bootdiff.data.decode import MOST_PIXELS
from bootdiff.errors import BootdiffError
from bootdiff.evaluation.opening import cascade, check_upscales, run_conditions
from bootdiff.files import write_whole
from bootdiff.out_of_memory import told_when_out_of_memory
from bootdiff.pictures import grid, grid_size, is_picture, to_image
from bootdiff.pipelines.samplers import ANY, Choice, PathSampler, Sampler, batch_for, conditions_for, open_student
from bootdiff.pipelines.student_files import load_student, path_folder, student_facts
from bootdiff.progress import progress

#: bytes that the smallest file takes on most disks
BLOCK = 4096


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
    count, columns = total * len(samplers), len(samplers) if times is not None else columns
    check_room(picture_shape(samplers[0]), count, columns, output)
    with told_when_out_of_memory(f"lower --batch-size (it draws {size} at a time) or --num (now {wanted.num})"):
        save_images(drawn(samplers, wanted.layout.work(canvas), total), output, columns)
    print(f"{count} images: {output}")
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
    return torch.cat(list(drawn(samplers, work, total)))


def drawn(samplers: Sequence[Sampler], work: Work, total: int) -> Iterator[torch.Tensor]:
    """The same, a batch at a time."""
    first = samplers[0]
    adapter = first.adapter if first.adapter is not None and first.adapter.latent else None
    with progress("sampling", total, 0, total > 4 * batch_for(first.shape)) as bar:
        for eps, condition in work:
            rows = [sampler(eps, condition.to(eps.device)) for sampler in samplers]
            images = rows if adapter is None else [adapter.decode(row) for row in rows]
            _check_picture(images[0].shape[1:])
            yield torch.stack(images, dim=1).flatten(0, 1).cpu()
            bar.advance(len(eps))


def picture_shape(sampler: Sampler) -> tuple[int, ...]:
    """(c, h, w) of the images that its samples become; a decoder's have three channels at most.

    Raises:
        BootdiffError: if they become none.
    """
    if sampler.adapter is not None and sampler.adapter.latent:
        return 3, *(side * sampler.adapter.factor for side in sampler.shape[-2:])
    _check_picture(sampler.shape)
    return tuple(sampler.shape)


def _check_picture(shape: Sequence[int]) -> None:
    if not is_picture(shape):
        raise BootdiffError(f"samples of shape {tuple(shape)} are no pictures; sample from Python instead.")


def check_room(shape: Sequence[int], count: int, columns: int | None, output: Path) -> None:
    """Refuse more images than a picture may have pixels for, or than the disk has room for.

    Args:
        shape: of an image, (c, h, w).
        columns: of the grid, if they matter.

    Raises:
        BootdiffError: saying how much it would be.
    """
    if is_grid(output):
        width, height = grid_size(count, shape[-2], shape[-1], columns)
        if width * height > MOST_PIXELS:
            raise BootdiffError(
                f"a grid of {count:,} images would have {width:,}×{height:,} pixels; expected at most {MOST_PIXELS:,}: "
                "lower --num, or name a folder, which gets a file for each."
            )
        return
    there = next(parent for parent in output.absolute().parents if parent.is_dir())
    needed, free = count * max(BLOCK, math.prod(shape)), shutil.disk_usage(there).free
    if needed > free:
        raise BootdiffError(
            f"{count:,} images may need {needed / 1e9:,.0f} GB and {there} has {free / 1e9:,.0f} GB free; lower --num, "
            "or choose another disk."
        )


def check_output(output: Path) -> None:
    """Refuse a place that images cannot go to, before they are made.

    Raises:
        BootdiffError: for another kind of file, or a folder that holds other files.
    """
    if output.name.lower() == ".png":
        raise BootdiffError(
            f"--output {output} is a suffix without a name; expected one such as grid.png, or a folder."
        )
    if is_grid(output):
        return
    if output.suffix:
        raise BootdiffError(f"--output {output}: expected a file that ends in .png, or a folder.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise BootdiffError(f"{output} exists and holds other files; choose a new folder.")


def is_grid(output: Path) -> bool:
    """Whether all images go into one file."""
    return output.suffix.lower() == ".png"


def save_images(batches: Iterable[torch.Tensor], output: Path, columns: int | None) -> None:
    """A grid where ``output`` ends in .png, else a folder with one file a sample, each written when it is drawn."""
    if is_grid(output):
        write_whole(output, grid(torch.cat(list(batches)), columns).save)
        return

    def write(folder: Path) -> None:
        folder.mkdir()
        for i, image in enumerate(image for batch in batches for image in batch):
            to_image(image).save(folder / f"{i:05d}.png")

    write_whole(output, write)
