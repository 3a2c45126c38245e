"""The pictures of docs/gallery.md, from finished runs.

    python docs/figures/gallery.py FOLDER --quickstart RUN --classes RUN --text RUN --cascade BASE LARGE \\
        --fashion RUN --corrected RUN

Each option is one or two runs of ``bootdiff distill``; those that learned a range of guidance weights show it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bootdiff.cli.words import read_pattern
from bootdiff.core.condition import Condition
from bootdiff.core.device import best_device
from bootdiff.core.randomness import sample_noise
from bootdiff.data.pictures import rows_grid
from bootdiff.samplers.choice import Choice
from bootdiff.samplers.refine import REFINED, Refined, level_of
from bootdiff.sampling.belonging import Opened
from bootdiff.sampling.layouts import Canvas, Interpolation, Layout, Swap
from bootdiff.sampling.opening import open_pair
from bootdiff.sampling.sample import drawn
from bootdiff.solvers import ddim, even_times, trailing_times
from bootdiff.students.files import load_student

COLUMNS = 10
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PROMPTS = [f"a handwritten {name}" for name in DIGITS]
SWAPPED = "a {bold,thin} {one,two,seven,8}"


def beside_teacher(run: str, choice: Choice, rows: int = 1) -> list[Tensor]:
    """For every row of noises: 50 DDIM steps of the teacher above one call of the student."""
    pair, pictures = open_pair(run, choice=choice), []
    for row in range(rows):
        eps, condition = noises(pair, row * COLUMNS)
        times = trailing_times(50, *pair.teacher.t_range)
        pictures += [decoded(pair, ddim(pair.teacher, eps, times, condition)), student_row(pair, eps, condition)]
    return pictures


def guidance(run: str, prompts: Sequence[str] | None, weights: Sequence[float]) -> list[Tensor]:
    """One row a weight, from the same noises (the paper's Fig. 7)."""
    rows = []
    for weight in weights:
        pair = open_pair(run, choice=Choice(prompts=prompts, weight=weight))
        rows.append(student_row(pair, *noises(pair, 0)))
    return rows


def path(run: str, choice: Choice, noises_shown: int = 4) -> list[Tensor]:
    """y_t from t_max to t_min, one row a noise (the paper's Fig. 4)."""
    student: Any = load_student(run).to(best_device())  # a path student, which answers for every t
    pair = open_pair(run, choice=choice)
    eps, condition = noises(pair, 0)
    few = eps[:noises_shown], condition.index(slice(noises_shown))
    times = even_times(COLUMNS - 1, student.t_min, student.t_max)
    made = [decoded(pair, student.sample(*few, t=t)) for t in times]
    return list(torch.stack(made, dim=1))


def laid_out(run: str, choice: Choice, layout: Layout, num: int) -> list[Tensor]:
    """What ``bootdiff sample`` draws with --interpolate (the paper's Fig. 9) or --swap (Fig. 10)."""
    pair = open_pair(run, choice=choice)
    canvas = Canvas(pair.sampler, pair.conditions, num, 0, len(choice.prompts or choice.classes or ()), COLUMNS)
    total, columns = layout.shape(canvas)
    images = torch.cat(list(drawn([pair.sampler], layout.work(canvas), total)))
    return list(images.split(columns or total))


def interpolation(run: str, choice: Choice, seeds: tuple[int, int]) -> list[Tensor]:
    """From one noise to another on a line, and below it on the sphere (the paper's Fig. 9)."""
    return [row for linear in (True, False) for row in laid_out(run, choice, Interpolation(seeds, linear), COLUMNS)]


def refined(run: str, edit: int) -> list[Tensor]:
    """One call; two calls of the teacher after it; and ten that finish it as another class."""
    pair = open_pair(run)
    eps, condition = noises(pair, 0)
    other = Condition({"classes": torch.full((1,), edit)}).to(best_device())
    finishes = [(2, REFINED, None), (10, 4.0, other)]
    rows = [student_row(pair, eps, condition)]
    for steps, noise, asked in finishes:
        finish = Refined(pair.sampler, pair.teacher, steps, level_of(pair.teacher.schedule, noise), None, asked)
        rows.append(decoded(pair, finish(eps, condition)))
    return rows


def noises(pair: Opened, start: int) -> tuple[Tensor, Condition]:
    """A row of noises and their conditions."""
    eps, device = sample_noise(0, start, start + COLUMNS, pair.sampler.shape), best_device()
    pair.teacher.to(device)
    return eps.to(device), pair.conditions.listed(0, start, start + COLUMNS).to(device)


def student_row(pair: Opened, eps: Tensor, condition: Condition) -> Tensor:
    """One call."""
    return decoded(pair, pair.sampler(eps.to(best_device()), condition.to(best_device())))


def decoded(pair: Opened, samples: Tensor) -> Tensor:
    """Images."""
    images = samples if pair.sampler.adapter is None else pair.sampler.adapter.decode(samples)
    return images.cpu()


@torch.no_grad()
def main() -> None:
    """Make every picture whose runs are given."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("folder", type=Path)
    for name in ("quickstart", "classes", "text", "fashion", "corrected"):
        words.add_argument(f"--{name}")
    words.add_argument("--cascade", nargs=2)
    asked = words.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, list[Tensor]] = {}
    if asked.quickstart:
        both = beside_teacher(asked.quickstart, Choice())
        pictures["quickstart"] = [both[0], beside_teacher(f"{asked.quickstart}/boot", Choice())[1], both[1]]
    if asked.classes:
        pictures["digits-class"] = beside_teacher(asked.classes, Choice(weight=2.0), rows=2)
        pictures["digits-class-guidance"] = guidance(asked.classes, None, (1.0, 2.0, 3.0, 4.0))
        pictures["digits-class-path"] = path(asked.classes, Choice(weight=1.0))
        pictures["digits-class-interpolation"] = interpolation(asked.classes, Choice(classes=[3], weight=1.0), (1, 2))
    if asked.text:
        spoken = Choice(prompts=PROMPTS, weight=2.0)
        pictures["digits-text"] = beside_teacher(asked.text, spoken, rows=2)
        pictures["digits-text-guidance"] = guidance(asked.text, PROMPTS, (1.0, 2.0, 3.0, 4.0))
        pictures["digits-text-path"] = path(asked.text, spoken)
        pictures["digits-text-interpolation"] = interpolation(asked.text, Choice(["a three"], weight=2.0), (1, 2))
        pictures["digits-text-swap"] = laid_out(asked.text, Choice(read_pattern(SWAPPED)), Swap(), num=4)
    if asked.cascade:
        large = beside_teacher(asked.cascade[1], Choice(prompts=PROMPTS))
        small = beside_teacher(asked.cascade[0], Choice(prompts=PROMPTS))
        pictures["digits-cascade"], pictures["digits-cascade-base"] = large, small
    if asked.fashion:
        pictures["fashion-32"] = beside_teacher(asked.fashion, Choice(weight=1.0), rows=2)
        pictures["fashion-32-guidance"] = guidance(asked.fashion, None, (1.0, 2.0, 3.0, 4.0))
        pictures["fashion-32-path"] = path(asked.fashion, Choice(weight=1.0))
        pictures["fashion-32-interpolation"] = interpolation(asked.fashion, Choice(classes=[8], weight=1.0), (1, 5))
    if asked.corrected:
        pictures["fashion-32-corrected"] = beside_teacher(asked.corrected, Choice(), rows=2)
        pictures["fashion-32-refined"] = refined(asked.corrected, edit=9)
    for name, rows in pictures.items():
        rows_grid(rows).save(asked.folder / f"{name}.png", optimize=True)
        print(asked.folder / f"{name}.png")


if __name__ == "__main__":
    main()
