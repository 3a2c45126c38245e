"""One call beside the teacher's best at any number of calls: the best recipes of builtin teachers, with three seeds.

    python benchmarks/past.py digits-class [--seeds 0 1 2] [--output runs/past]     # writes docs/records/past-NAME.json

A recipe is a chain of runs of ``bootdiff distill``, each of which starts from the student of the one before; the files
of its settings are in ``configs``. The last student is measured by ``bootdiff evaluate`` with 10,000 samples for each
of three noise seeds, beside its teacher's best samplers from the same noises. Runs that are there are not made again.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands import bootdiff
from records import FOLDER, ROOT, new_record, write_record

from bootdiff.storage.passes import trained_passes

NUM, REPEATS = 10_000, 3
#: seeds of training
SEEDS = [0, 1, 2]
#: numbers of calls at which the teacher's best sampler is measured, and the number that training should soon reach
CALLS = "10,25,50"
FEW = 10
#: no looks and no pictures on the way
QUIET = ("--set", "watch_every=0", "--set", "sample_every=0")
#: a pass forward is one, and one with its way back is three
TRAINING = 3


@dataclass(frozen=True)
class Recipe:
    """How the best student of a teacher is made.

    Args:
        teacher: its name.
        stages: for each run the word after --method and its file of settings in ``configs``.
        options: of every run.
        taught: how many times a teacher's network saw an image when it was trained (steps times batch, ``recipes``).
    """

    teacher: str
    stages: tuple[tuple[str, str], ...]
    taught: int
    options: tuple[str, ...] = ()


RECIPES: Mapping[str, Recipe] = {
    "digits": Recipe(
        "digits",
        (("boot", "passes/boot.yaml"), ("dm", "digits-paired.yaml"), ("dm", "digits-paired-again.yaml")),
        8000 * 128,
    ),
    "digits-class": Recipe(
        "digits-class", (("boot", "digits-long.yaml"), ("dm", "digits-class-corrected.yaml")), 4000 * 128
    ),
    "digits-class-soon": Recipe("digits-class", (("boot+dm", "digits-class-soon.yaml"),), 4000 * 128),
    "digits-text": Recipe(
        "digits-text",
        (("boot", "digits-long.yaml"), ("dm", "digits-class-corrected.yaml")),
        4000 * 64,
        ("--prompts", "digits"),
    ),
}


def main() -> None:
    """Make the runs of one recipe and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", choices=list(RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, help="of training")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "past")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="noise seeds of 10,000 samples each")
    parser.add_argument("--no-record", action="store_true", help="make the runs, and leave the record as it is")
    asked = parser.parse_args()
    recipe = RECIPES[asked.recipe]
    folder = asked.output / asked.recipe
    found = [measured(recipe, seed, folder / f"seed-{seed}", asked.repeats) for seed in asked.seeds]
    if asked.no_record:
        return
    tables = {"students": list(students(recipe, found)), "teacher": list(teacher_rows(found[0][1]))}
    words = asked.recipe
    if asked.seeds != SEEDS:
        words += f" --seeds {' '.join(map(str, asked.seeds))}"
    if asked.repeats != REPEATS:
        words += f" --repeats {asked.repeats}"
    record = new_record(tables, seeds=tuple(asked.seeds), command=f"python benchmarks/past.py {words}")
    write_record(FOLDER / f"past-{asked.recipe}.json", record)


def measured(recipe: Recipe, seed: int, folder: Path, repeats: int) -> tuple[list[Path], dict[str, Any], int]:
    """Return the runs of one seed, the last one's evaluation over so many noise seeds, and the seed."""
    runs: list[Path] = []
    for number, (method, file) in enumerate(recipe.stages):
        run = folder / str(number)
        start = ("--start", runs[-1]) if runs else ()
        options = ("--config", ROOT / "configs" / file, "--seed", seed, *QUIET, *recipe.options)
        bootdiff("distill", recipe.teacher, "--method", method, "--output", run, *start, *options)
        runs.append(run)
    told = runs[-1] / ("past.json" if repeats == REPEATS else f"past-{repeats}.json")
    if not told.exists():
        words = ("--num", NUM, "--repeats", repeats, "--calls", CALLS, "--no-heun", "--output", told)
        bootdiff("evaluate", runs[-1], *words)
    return runs, json.loads(told.read_text(encoding="utf-8")), seed


def students(recipe: Recipe, found: list[tuple[list[Path], dict[str, Any], int]]) -> Iterator[dict[str, Any]]:
    """Yield a row for each training seed: its figures, divided by those of the teacher's best row."""
    for runs, told, seed in found:
        own = next(row for row in told["rows"] if row["kind"] == "student" and row["stage"] is None)
        best, few = best_within(told), best_within(told, FEW)
        passes = sum((trained_passes(run) or {"all": 0})["all"] for run in runs)
        row = {"seed of training": seed, "Fréchet distance": own["frechet_distance"]}
        row["÷ the teacher's best"] = own["frechet_distance"] / best["frechet_distance"]
        row[f"÷ its best of {FEW} calls"] = own["frechet_distance"] / few["frechet_distance"]
        for key in ("precision", "recall"):
            row[key] = value(own, key)
            row[f"{key} ÷ its"] = value(own, key) / value(best, key)
        row["worth calls"] = (own.get("call_equivalence") or {}).get("says")
        yield {**row, "passes ÷ the teacher's training": passes / (TRAINING * recipe.taught)}


def best_within(told: dict[str, Any], calls: float = math.inf) -> Mapping[str, Any]:
    """Return the teacher's row of the smallest distance within some calls."""
    rows = (row for row in told["rows"] if row["kind"] == "teacher" and row["calls"] <= calls)
    return min(rows, key=lambda row: row["frechet_distance"])


def teacher_rows(told: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the teacher's rows, from few calls to many."""
    for row in told["rows"]:
        if row["kind"] == "teacher":
            figures = {"Fréchet distance": row["frechet_distance"]}
            figures |= {key: value(row, key) for key in ("precision", "recall")}
            yield {
                "sampler": row["name"],
                "calls": row["calls"],
                **figures,
            }


def value(row: Mapping[str, Any], key: str) -> float:
    """Return a figure of a row; where it has none, nan."""
    return float(row["figures"].get(key, {}).get("value", float("nan")))


if __name__ == "__main__":
    main()
