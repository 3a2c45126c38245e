"""``bootdiff sample``."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bootdiff.builtin import DIGITS
from bootdiff.condition import Condition
from bootdiff.data.conditions import Cascade, Conditions
from bootdiff.data.prompts import read_prompt_labels, read_prompts
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
    best_device,
    conditions_for,
    noise_batches,
    open_student,
)
from bootdiff.pipelines.student_files import load_student, path_folder, student_facts
from bootdiff.progress import progress
from bootdiff.randomness import sample_noise

LARGEST_SEED = 2**62


@dataclass(frozen=True)
class Wanted:
    """What to sample.

    Args:
        num, seed: sample i starts from the noise of seed + i.
        batch_size: samples a network call.
        choice: of prompts, classes and guidance weight.
        interpolate: two seeds; a row of ``num`` images from the noise of the one to that of the other, for every
            prompt or class that is named.
        linear: on a line instead of the sphere on which noises lie.
        swap: prompts from one pattern, side by side for each of ``num`` noises.
    """

    num: int = 16
    seed: int = 0
    batch_size: int = 256
    choice: Choice = ANY
    interpolate: tuple[int, int] | None = None
    linear: bool = False
    swap: bool = False


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
    work, total, columns = _work(samplers[0], conditions, wanted)
    made = draw(samplers, work, total)
    if not is_picture(made.shape[1:]):
        raise BootdiffError(f"samples of shape {tuple(made.shape[1:])} are no pictures; sample from Python instead.")
    save_images(made, output, len(samplers) if times is not None else columns)
    print(f"{len(made)} images: {output}")
    for line in describe(facts, samplers[0], wanted):
        print(line)


def describe(facts: Mapping[str, Any], sampler: Sampler, wanted: Wanted) -> Iterator[str]:
    """What the pictures cannot say: the order of words, and the guidance weight where the user named none."""
    choice, learned = wanted.choice, facts.get("guidance")
    words = choice.prompts if choice.prompts is not None else choice.classes
    if words is not None and len(words) > 1:
        order = "columns" if wanted.swap else "rows" if wanted.interpolate else "one after the other"
        yield f"{order}: {textwrap.shorten('; '.join(map(str, words)), 400, placeholder=' …')}"
    if isinstance(learned, list) and choice.weight is None and "folded_weight" not in facts:
        yield (
            f"guidance weight {sampler.told_weight(None):g}, the middle of {learned[0]:g} to {learned[1]:g}; "
            "choose with --guidance-scale."
        )


def _conditions(name: str, base: str | None, sampler: Sampler, facts: dict[str, Any], choice: Choice) -> Conditions:
    if base is None:
        return run_conditions(name, sampler, facts, choice)
    if choice.prompts is None:
        raise BootdiffError("a cascade is conditioned on text; give --prompt TEXT or --prompts FILE.")
    return cascade(base, sampler, facts, conditions_for(sampler, facts, choice), choice.prompts)


#: noises and their conditions, a batch at a time
Work = Iterator[tuple[torch.Tensor, Condition]]


def _work(sampler: Sampler, conditions: Conditions, wanted: Wanted) -> tuple[Work, int, int | None]:
    """(batches, how many samples, columns of their grid)."""
    named = wanted.choice.prompts if wanted.choice.prompts is not None else wanted.choice.classes
    size = min(wanted.batch_size, batch_for(sampler.shape))
    if wanted.swap:
        count = len(named or ())
        return _swapped(sampler, conditions, wanted, count), count * wanted.num, count
    if wanted.interpolate is not None:
        if isinstance(conditions, Cascade):
            raise BootdiffError("--interpolate is for one student; a cascade's second stage has a noise of its own.")
        rows = len(named) if named else 1
        return _interpolated(sampler, conditions, wanted, rows, size), rows * wanted.num, wanted.num
    return _plain(sampler, conditions, wanted, size), wanted.num, None


def _plain(sampler: Sampler, conditions: Conditions, wanted: Wanted, size: int) -> Work:
    start = 0
    for eps in noise_batches(wanted.seed, wanted.num, sampler.shape, size):
        yield eps, conditions.listed(wanted.seed, start, start + len(eps))
        start += len(eps)


def _interpolated(sampler: Sampler, conditions: Conditions, wanted: Wanted, rows: int, size: int) -> Work:
    """One row a condition."""
    first, last = (sample_noise(seed, 0, 1, sampler.shape) for seed in wanted.interpolate or (0, 0))
    shares = torch.linspace(0, 1, wanted.num).view(-1, *[1] * len(sampler.shape))
    eps = interpolated(first, last, shares, wanted.linear)
    for row in range(rows):
        condition = conditions.listed(wanted.seed, row, row + 1)
        for part in eps.split(size):
            yield part.to(best_device()), Condition.cat([condition] * len(part))


def _swapped(sampler: Sampler, conditions: Conditions, wanted: Wanted, count: int) -> Work:
    """One row a noise: number ``column`` of a list that begins ``column`` seeds earlier has the row's own seed.

    One image at a time: a cascade makes its base's image of every noise and prompt.
    """
    for row in range(wanted.num):
        eps = sample_noise(wanted.seed, row, row + 1, sampler.shape).to(best_device())
        for column in range(count):
            yield eps, conditions.listed(wanted.seed + row - column, column, column + 1)


def interpolated(first: torch.Tensor, last: torch.Tensor, shares: torch.Tensor, linear: bool) -> torch.Tensor:
    """From one noise to another: on a line, or on the sphere on which noises of many values lie.

    Args:
        first, last: (1, *shape).
        shares: of the way, (n, 1, …) in [0, 1].
    """
    if linear:
        return first + shares * (last - first)
    cosine = torch.nn.functional.cosine_similarity(first.flatten(), last.flatten(), dim=0).clamp(-1, 1)
    angle = torch.arccos(cosine)
    if angle < 1e-4:  # the same noise
        return first + shares * (last - first)
    return (torch.sin((1 - shares) * angle) * first + torch.sin(shares * angle) * last) / torch.sin(angle)


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


def check_layout(swap: bool, interpolate: tuple[int, int] | None, linear: bool, times: str | None) -> None:
    """Refuse options that mean nothing together.

    Raises:
        BootdiffError: naming them.
    """
    asked = [word for word, given in (("--swap", swap), ("--interpolate", interpolate), ("--times", times)) if given]
    if len(asked) > 1:
        raise BootdiffError(f"{' and '.join(asked)} each lay the picture out; give one of them.")
    if linear and interpolate is None:
        raise BootdiffError("--linear says how to --interpolate SEED SEED; give both.")
    if interpolate is not None and not all(0 <= seed <= LARGEST_SEED for seed in interpolate):
        raise BootdiffError(f"--interpolate expects two seeds from 0 to {LARGEST_SEED}, got {interpolate}.")


def read_pattern(pattern: str) -> list[str]:
    """Every prompt that a pattern such as ``"a {bold,thin} {one,two}"`` stands for.

    Raises:
        BootdiffError: if it has no choice in braces.
    """
    parts = re.split(r"\{([^{}]*)\}", pattern)
    choices = [part.split(",") if i % 2 else [part] for i, part in enumerate(parts)]
    prompts = [" ".join("".join(words).split()) for words in itertools.product(*choices)]
    if len(prompts) < 2:
        raise BootdiffError(f"--swap expects words to choose from, such as 'a {{bold,thin}} seven', got '{pattern}'.")
    return prompts


def read_labels(prompts: Path | None, column: str | None, label_column: str | None) -> Sequence[int] | None:
    """The classes that a file's prompts ask for.

    Raises:
        BootdiffError: without a file, or one with gaps.
    """
    if label_column is None and prompts is not None and str(prompts) == DIGITS and not prompts.exists():
        label_column = "label"
    if label_column is None:
        return None
    if prompts is None:
        raise BootdiffError("--label-column names a column of the --prompts file; give both.")
    return read_prompt_labels(prompts, column, label_column)


def read_words(
    prompt: Sequence[str], prompts: Path | None, column: str | None, swap: str | None = None
) -> Sequence[str] | None:
    """The prompts of ``--prompt``, ``--prompts`` or ``--swap``.

    Raises:
        BootdiffError: where several are given, or the file cannot be read.
    """
    if bool(prompt) + (prompts is not None) + (swap is not None) > 1:
        raise BootdiffError("--prompt, --prompts and --swap exclude each other; give one of them.")
    if swap is not None:
        return read_pattern(swap)
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
