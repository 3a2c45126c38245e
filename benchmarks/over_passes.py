"""BOOT's distance over training passes, beside direct distillation's: how many DDIM calls one call is worth on the way.

    python benchmarks/over_passes.py digits [--output runs/passes]      # writes docs/records/passes-NAME.json

Both sides have the same network, start, rate, average and number of passes; the making of direct distillation's pairs
is a part of its passes. Their settings are in ``configs/passes``. Runs that are there are not made again.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from checkpoints import checkpoint_rows
from commands import bootdiff
from records import FOLDER, ROOT, new_record, write_record

from bootdiff.evaluation.equivalence import Point, worth
from bootdiff.evaluation.measurement import Measurement

#: for each teacher, the options of its commands
TEACHERS: Mapping[str, tuple[str, ...]] = {
    "digits": (),
    "digits-class": (),
    "digits-text": ("--prompts", "digits"),
}
METHODS = ("boot", "direct")
#: samples of every figure
NUM = 10_000
QUIET = ("watch_every=0", "sample_every=0", "keep_last=100")


def main() -> None:
    """Make the runs of one teacher and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("teacher", choices=list(TEACHERS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "passes")
    parser.add_argument("--no-record", action="store_true", help="make the runs, and leave the record as it is")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    runs = {method: trained(asked.teacher, method, asked.output / asked.teacher / method) for method in asked.methods}
    if asked.no_record:
        return
    curve = ddim(asked.teacher, asked.output / f"{asked.teacher}.json")
    found = [row for method, run in runs.items() for row in rows(method, run, curve)]
    tables = {"over passes": found, "DDIM": [{"calls": p.calls, "Fréchet distance": p.distance} for p in curve]}
    record = new_record(tables, seeds=(0,), command=f"python benchmarks/over_passes.py {asked.teacher}")
    write_record(FOLDER / f"passes-{asked.teacher}.json", record)


def trained(teacher: str, method: str, run: Path) -> Path:
    """Return a method's run."""
    options = TEACHERS[teacher]
    settings = [word for setting in QUIET for word in ("--set", setting)]
    config = ROOT / "configs" / "passes" / f"{method}.yaml"
    bootdiff("distill", teacher, "--method", method, "--output", run, "--config", config, *options, *settings)
    return run


def ddim(teacher: str, told: Path) -> list[Point]:
    """Return the distances of the teacher's DDIM, from few calls to many, each in its better spacing."""
    options = (*TEACHERS[teacher], *(("--label-column", "label") if TEACHERS[teacher] else ()))
    if not told.exists():
        bootdiff("evaluate", teacher, "--num", NUM, "--calls", 10, "--no-heun", "--output", told, *options)
    rows = json.loads(told.read_text(encoding="utf-8"))["rows"]
    return [Point(row["calls"], row["frechet_distance"]) for row in rows if row["sampler"] == "ddim"]


def rows(method: str, run: Path, curve: list[Point]) -> Iterator[dict[str, Any]]:
    """Yield a row for each checkpoint; the making of pairs is a part of its passes."""
    for row in checkpoint_rows(run, Measurement(num=NUM)):
        calls = worth(row["Fréchet distance"], curve)
        words = "more than 50" if math.isinf(calls) else f"{calls:.1f}"
        yield {"method": method, **row, "worth DDIM calls": words}


if __name__ == "__main__":
    main()
