"""The curves of the builtin teachers: their own samplers at every number of calls, which ship with the package.

    python recipes/curves.py [NAME ...]       # all of them by default; an hour on one core

It uses one thread, so that a test on one thread makes a row again to the last digit. Rows that ship already are kept:
remove a file of src/bootdiff/builtin/curves to measure it anew.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import torch

from bootdiff.builtin import DIGITS, builtin_folder
from bootdiff.cli.evaluate import run_evaluate
from bootdiff.data.prompts import read_prompt_labels, read_prompts
from bootdiff.evaluation.measurement import Measurement
from bootdiff.samplers.choice import Choice


@dataclass(frozen=True)
class Curve:
    """What is measured of a teacher.

    Args:
        teacher: a builtin's name.
        weight: of guidance.
        worded: whether it takes the prompts of the digits.
        repeats: noise seeds.
    """

    teacher: str
    weight: float | None = None
    worded: bool = False
    repeats: int = 1

    @property
    def name(self) -> str:
        """Of its file, before the key."""
        return self.teacher if self.weight is None else f"{self.teacher}-w{self.weight:g}"


CURVES = (
    Curve("digits", repeats=3),  # as many as the quickstart measures with
    Curve("digits-class"),
    Curve("digits-text", worded=True),
    Curve("digits-cascade", worded=True),
    Curve("digits-text", 2.5, worded=True),
    Curve("digits-class", 2.0),
    Curve("digits-cascade", 2.0, worded=True),
)


def main() -> None:
    """Measure and put the files into the package."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=[curve.name for curve in CURVES], help="such as digits-text-w2.5")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for curve in CURVES:
        if curve.name in asked.names:
            measure(curve)


def measure(curve: Curve) -> None:
    """One curve, resumed from what a kill left of it."""
    cache = Path(tempfile.gettempdir()) / f"curve-{curve.name}"
    os.environ["BOOTDIFF_CACHE"] = str(cache)
    prompts = list(read_prompts(DIGITS).prompts) if curve.worded else None
    labels = read_prompt_labels(DIGITS, None, "label") if curve.worded else None
    choice = Choice(prompts, None, curve.weight)
    wanted = Measurement(repeats=curve.repeats, choice=choice, labels=labels)
    run_evaluate(curve.teacher, wanted, cache / "figures.json", everything=True)
    folder = builtin_folder("curves")
    folder.mkdir(exist_ok=True)
    for path in (cache / "curves").glob("*.json"):
        shutil.copy(path, folder / f"{curve.name}-{path.name}")
        print(f"{curve.name}: {path.name}")
    shutil.rmtree(cache)


if __name__ == "__main__":
    main()
