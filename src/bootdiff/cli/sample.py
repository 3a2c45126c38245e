"""``bootdiff sample``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bootdiff.data.conditions import Conditions
from bootdiff.data.prompts import read_prompts
from bootdiff.errors import BootdiffError
from bootdiff.evaluation.opening import cascade, run_conditions
from bootdiff.files import write_whole
from bootdiff.pictures import grid, is_picture, to_image
from bootdiff.pipelines.samplers import (
    ANY,
    Choice,
    PathSampler,
    Sampler,
    batch_for,
    conditions_for,
    noise_batches,
    open_student,
)
from bootdiff.pipelines.student_files import load_student, path_folder, student_facts
from bootdiff.progress import progress


@dataclass(frozen=True)
class Wanted:
    """What to sample.

    Args:
        num, seed: sample i starts from the noise of seed + i.
        batch_size: samples a network call.
        choice: of prompts, classes and guidance weight.
    """

    num: int = 16
    seed: int = 0
    batch_size: int = 256
    choice: Choice = ANY


def run_sample(students: Sequence[str], wanted: Wanted, times: str | None, output: Path) -> None:
    """Draw samples and save them as a grid or as files; a second student enlarges the first one's images.

    Raises:
        BootdiffError: for students, words or an output that do not fit.
    """
    if len(students) > 2:
        raise BootdiffError(f"expected a student, or a base and its super-resolution student, got {len(students)}.")
    check_output(output)
    name, base = students[-1], students[0] if len(students) == 2 else None
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
    made = draw(samplers, conditions, wanted)
    if not is_picture(made.shape[1:]):
        raise BootdiffError(f"samples of shape {tuple(made.shape[1:])} are no pictures; sample from Python instead.")
    save_images(made, output, len(samplers) if times is not None else None)
    print(f"{len(made)} images: {output}")


def _conditions(name: str, base: str | None, sampler: Sampler, facts: dict[str, Any], choice: Choice) -> Conditions:
    if base is None:
        return run_conditions(name, sampler, facts, choice)
    if choice.prompts is None:
        raise BootdiffError("a cascade is conditioned on text; give --prompt TEXT or --prompts FILE.")
    return cascade(base, sampler, facts, conditions_for(sampler, facts, choice), choice.prompts)


def draw(samplers: Sequence[Sampler], conditions: Conditions, wanted: Wanted) -> torch.Tensor:
    """Images in [−1, 1], one sampler after the other for each noise."""
    first, adapter = samplers[0], samplers[0].adapter
    # Small images go many at a time, large ones few.
    size = min(wanted.batch_size, batch_for(first.shape))
    made, start = [], 0
    with progress("sampling", wanted.num, 0, wanted.num > 4 * size) as bar:
        for eps in noise_batches(wanted.seed, wanted.num, first.shape, size):
            condition = conditions.listed(wanted.seed, start, start + len(eps)).to(eps.device)
            rows = [sampler(eps, condition) for sampler in samplers]
            images = rows if adapter is None else [adapter.decode(row) for row in rows]
            made.append(torch.stack(images, dim=1).flatten(0, 1).cpu())
            start += len(eps)
            bar.advance(len(eps))
    return torch.cat(made)


def read_words(prompt: Sequence[str], prompts: Path | None, column: str | None) -> Sequence[str] | None:
    """The prompts of ``--prompt`` or ``--prompts``.

    Raises:
        BootdiffError: where both are given, or the file cannot be read.
    """
    if prompt and prompts is not None:
        raise BootdiffError("--prompt and --prompts exclude each other; give one of them.")
    return read_prompts(prompts, column).prompts if prompts is not None else prompt or None


def read_times(words: str) -> list[float]:
    """Comma-separated times.

    Raises:
        BootdiffError: if one is no number.
    """
    try:
        return [float(word) for word in words.split(",")]
    except ValueError:
        raise BootdiffError(f"--times expects numbers such as 0.9,0.5,0.1, got '{words}'.") from None


def read_classes(words: str | None) -> list[int] | None:
    """Comma-separated class labels.

    Raises:
        BootdiffError: if one is no whole number.
    """
    if words is None:
        return None
    try:
        labels = [int(word) for word in words.split(",")]
    except ValueError:
        labels = [-1]
    if min(labels) < 0:
        raise BootdiffError(f"--classes expects whole numbers such as 0,3,7, got '{words}'.")
    return labels


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
