"""``bootdiff benchmark`` on a teacher: every method at an equal budget, one call and two. A record.

    python benchmarks/methods.py digits [--output runs/methods]         # writes docs/records/methods-digits.json
    python benchmarks/methods.py digits --minutes                       # equal time: docs/records/minutes-digits.json
    python benchmarks/methods.py fashion-32 --teacher FOLDER

The benchmark resumes: runs that are there are not made again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands import bootdiff
from records import FOLDER, ROOT, new_record, write_record


@dataclass(frozen=True)
class Entry:
    """What a teacher's record is made with.

    Args:
        options: of the command, such as its prompts.
        seeds: of training, where passes are the budget; minutes have the first one.
    """

    passes: int
    options: tuple[str, ...] = ()
    seeds: str = "0"


#: the second budget
MINUTES = 2


def settings(found: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Return options that set values of the methods' recipes."""
    return tuple(
        word for method, values in found.items() for key, value in values.items()
        for word in ("--set", f"{method}.{key}={value}")
    )  # fmt: skip


#: the methods that begin late on the path of pixels; latents lose more by that, so they begin where BOOT does there
LATE = ("boot", "boot+dm", "boot+sid", "boot+drift", "direct", "dfno", "consistency-training", "tbcm")
LATENTS = {method: {"t_max": 0.8} for method in LATE}
#: of lcm's weights the one without guidance, as all others have it; benchmarks/poster.py is with guidance
UNGUIDED = {"lcm": {"guidance_range": "null", "guidance_scale": 1}}
#: what docs/log.md found for BOOT and its correction on fashion-32: a later start, larger steps, lower rates
ALL = {"mixed_precision": "bf16", "learning_rate": 1e-3}
SLOW = {"learning_rate": 1.5e-4, "fake_learning_rate": 4e-4, "noise_levels": [0.3, 0.97]}
PATH = {"delta": 0.1, "boundary_every": 4}
START = {"t_max": 0.93}
FASHION = {
    "boot": {**ALL, **PATH, **START},
    "boot+dm": {**ALL, **SLOW, **PATH, **START, "boot.learning_rate": 1e-3},
    "direct": {**ALL, **START},
    "progressive": {**ALL, "t_max": "null"},
    "consistency": ALL,
}
#: fewer samples and rows of the teacher, whose passes are dear there
FEW = ("--num", "1000", "--calls", "1,2,4", "--features", "fashion", "--reference", "fashion")
TEACHERS: Mapping[str, Entry] = {
    "digits": Entry(400_000, ("--images", "digits"), "0,1,2"),
    "digits-class": Entry(400_000, ("--images", "digits")),
    "digits-text": Entry(400_000, ("--prompts", "digits", "--images", "digits", *settings({**LATENTS, **UNGUIDED}))),
    "fashion-32": Entry(100_000, ("--methods", ",".join(FASHION), "--null-class", "10", *FEW, *settings(FASHION))),
}
#: the columns of the README
SHORT = ("method", "learned from", "Fréchet distance", "precision", "recall", "worth calls")
#: the measured figures that have a column, and their headings
FIGURES = {
    "frechet_distance": "Fréchet distance",
    "precision": "precision",
    "recall": "recall",
    "inception_score": "inception score",
    "faithfulness": "faithful",
    "path_error": "path error",
}


def main() -> None:
    """Make a teacher's runs and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("teacher", choices=list(TEACHERS))
    parser.add_argument("--teacher", dest="folder", help="where the teacher is no builtin one")
    parser.add_argument("--minutes", action="store_true", help="give each method as much time instead of passes")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "methods")
    asked = parser.parse_args()
    entry, folder = TEACHERS[asked.teacher], asked.output / asked.teacher
    budget = ("--minutes", MINUTES) if asked.minutes else ("--passes", entry.passes, "--training-seeds", entry.seeds)
    bootdiff("benchmark", asked.folder or asked.teacher, "--output", folder, *entry.options, *budget)
    told = json.loads((folder / "benchmark.json").read_text(encoding="utf-8"))
    kind = "minutes" if asked.minutes else "passes"
    tables = {name: found for name, found in tables_of(told, kind) if found}
    seeds = [int(seed) for seed in ("0" if asked.minutes else entry.seeds).split(",")]
    command = f"python benchmarks/methods.py {asked.teacher}{' --minutes' if asked.minutes else ''}"
    record = new_record(tables, seeds=seeds, command=command + (" --teacher FOLDER" if asked.folder else ""))
    write_record(FOLDER / f"{'minutes' if asked.minutes else 'methods'}-{asked.teacher}.json", record)


def tables_of(told: Mapping[str, Any], kind: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the tables of a kind of budget by their names: one call, two, and the teacher's."""
    for calls, words in ((1, "one call"), (2, "two calls")):
        same = [row for row in told["rows"] if (row["budget"], row["calls"]) == (kind, calls)]
        yield words, [line(row) for row in same]
    measured = [line(row) for row in told["rows"] if (row["budget"], row["calls"]) == (kind, 1) and row["figures"]]
    yield "in short", [{key: row.get(key) for key in SHORT} for row in measured]
    yield "teacher", [best(row) for row in told["teacher"] if row["best_of"] is not None]
    yield "DDIM", [best(row) for row in told["teacher"] if row["sampler"] == "ddim" and row["best_of"] is None]


def line(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a method's line; figures over several training seeds have their lowest and highest in brackets."""
    found: dict[str, Any] = {"method": row["method"], "learned from": row["source"]}
    found |= {title: figure(row["figures"][name]) for name, title in FIGURES.items() if name in row["figures"]}
    worth = ", ".join(dict.fromkeys(word for word in row["worth"] if word))
    memory = row["peak_memory"]
    return {
        **found,
        "worth calls": worth or None,
        "images/s": row["images_per_second"],
        "passes, thousands": None if row["passes"] is None else round(row["passes"] / 1000),
        "seconds": round(row["seconds"]),
        "memory, MiB": None if memory is None else round(memory / 2**20),
    }


def figure(found: Mapping[str, float]) -> float | str:
    """Return a figure, with its lowest and highest where they differ."""
    value, low, high = (found[key] for key in ("value", "low", "high"))
    return value if low == high else f"{value:.3g} ({low:.3g} to {high:.3g})"


def best(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line of the teacher."""
    found = {name: title for name, title in FIGURES.items() if name in row["figures"]}
    figures = {title: row["figures"][name]["value"] for name, title in found.items()}
    return {"sampler": row["name"], "calls": row["calls"], **figures}


if __name__ == "__main__":
    main()
