"""Every method on one builtin teacher, in one table: distance, precision, recall, calls, passes, source. A record.

    python benchmarks/siblings.py digits --output runs/siblings

Each method is a run of ``bootdiff distill`` with the recipe of ``bootdiff benchmark``, which ``bootdiff ablate`` chose
from the small grids of ``configs/siblings``, and of ``bootdiff evaluate``; BOOT and its correction have those of their
own files. Runs that are there are not made again. The methods have not the same budget: passes are a column. On the
teachers with a condition every training has half of the steps of its file. With ``--methods`` their rows are made anew,
and the others stay as they are in the record, which then names the commits of all.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from commands import bootdiff
from records import FOLDER, ROOT, Record, new_record, read_record, write_record

CONFIGS, RECIPES = ROOT / "configs", ROOT / "src" / "bootdiff" / "benchmark" / "recipes"
#: what each teacher is conditioned on, as options
TEACHERS: Mapping[str, tuple[str, ...]] = {
    "digits": (),
    "digits-class": (),
    "digits-text": ("--prompts", "digits"),
}
#: for each row's method: the word after --method, its file of settings, and settings that differ
METHODS: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "boot": ("boot", "BOOT", ()),
    "boot+dm": ("boot+dm", "digits-corrected.yaml", ()),
    "direct": ("direct", "recipes/direct.yaml", ()),
    "progressive": ("progressive", "recipes/progressive.yaml", ()),
    "consistency": ("consistency", "recipes/consistency.yaml", ()),
    "consistency-training": ("consistency-training", "recipes/consistency-training.yaml", ()),
    "consistency-training-improved": ("consistency-training", "siblings/consistency-training-improved.yaml", ()),
    "tract": ("tract", "recipes/tract.yaml", ()),
    "reflow": ("reflow", "recipes/reflow.yaml", ("flows=1",)),
    "reflow-2": ("reflow", "recipes/reflow.yaml", ("flows=2",)),
    "reflow-3": ("reflow", "recipes/reflow.yaml", ("flows=3",)),
    "dfno": ("dfno", "recipes/dfno.yaml", ()),
    "lcm": ("lcm", "recipes/lcm.yaml", ()),
}
#: the share of the steps of a file that a teacher's runs have
SHARES: Mapping[str, float] = {"digits": 1.0, "digits-class": 0.5, "digits-text": 0.5}
#: the start of a path in latents, which lose more by a late one than pixels do: that of BOOT's own file
LATE = ("t_max=0.8",)
#: settings of a method that a teacher needs in place of those of its file
OWN: Mapping[tuple[str, str], tuple[str, ...]] = {
    **{(name, "digits-text"): LATE for name in ("direct", "progressive", "dfno", "consistency-training")},
    ("boot+dm", "digits-text"): ("t_max=0.8", "delta=0.07", "learning_rate=3e-4", "fake_learning_rate=1e-3"),
}
#: BOOT's own settings, by the teacher
BOOT = {"digits": "src/bootdiff/builtin/digits/quickstart.yaml", "digits-text": "configs/digits-text.yaml"}
#: the methods of a teacher of pixels, and those of one of latents
PIXELS = [name for name in METHODS if name != "lcm"]


def main() -> None:
    """Make all runs and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("teacher", choices=list(TEACHERS))
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "siblings")
    parser.add_argument(
        "--methods", nargs="+", choices=list(METHODS), help="by default every one that is for the teacher"
    )
    parser.add_argument("--record", type=Path)
    parser.add_argument("--no-record", action="store_true", help="make the runs, and leave the record as it is")
    asked = parser.parse_args()
    names = asked.methods or (list(METHODS) if asked.teacher == "digits-text" else PIXELS)
    found = {name: list(rows(asked.teacher, name, asked.output / asked.teacher)) for name in names}
    if asked.no_record:
        return
    path = asked.record or FOLDER / f"siblings-{asked.teacher}.json"
    record = new_record(
        {"siblings": [row for name in names for row in found[name]], "teacher": teachers(asked, names[0])},
        seeds=(0,),
        command=f"python benchmarks/siblings.py {asked.teacher}",
    )
    write_record(path, beside(read_record(path), record) if asked.methods and path.exists() else record)


def beside(old: Record, new: Record) -> Record:
    """Return a record with the new rows, and of the old ones those of other methods."""
    of = {row["method"].split(",")[0] for row in new.values["siblings"]}
    kept = [row for row in old.values["siblings"] if row["method"].split(",")[0] not in of]
    order = list(METHODS)
    place = {name: number for number, name in enumerate(order)}
    found = sorted([*kept, *new.values["siblings"]], key=lambda row: place.get(row["method"].split(",")[0], len(order)))
    commits = ", ".join(dict.fromkeys([*(old.commit.split(", ") if kept else ()), new.commit]))
    return replace(new, values={**new.values, "siblings": found}, commit=commits)


def rows(teacher: str, name: str, output: Path) -> Iterator[dict[str, Any]]:
    """Make one method's run and evaluate it; yield a row for each of its students and numbers of calls."""
    run, (method, file, words) = output / name, METHODS[name]
    config = ROOT / BOOT.get(teacher, BOOT["digits"]) if file == "BOOT" else CONFIGS / file
    config = RECIPES / Path(file).name if file.startswith("recipes/") else config
    images = ("--images", "digits") if method == "consistency-training" else ()
    words = (*words, *OWN.get((name, teacher), ()), *steps(config, SHARES[teacher]))
    settings = [w for word in words for w in ("--set", word)]
    options = ("--output", run, "--config", config, *TEACHERS[teacher], *images, *settings)
    bootdiff("distill", teacher, "--method", method, *options)
    if not (run / "evaluation.json").exists():
        bootdiff("evaluate", run, "--output", run / "evaluation.json")
    figures = json.loads((run / "evaluation.json").read_text())
    source = "noise" if method.startswith("boot") else "images" if images else "pairs"
    source = "trajectories" if method == "dfno" else source
    passes = figures["passes"]
    for row in (row for row in figures["rows"] if row["kind"] == "student"):
        last, stage = row["stage"] is None, {"first": "first stage"}.get(str(row["stage"]), row["stage"])
        found: dict[str, Any] = {
            "method": name if last else f"{name}, {stage}",
            "source": source,
            "calls": row["calls"],
            "Fréchet distance": row["frechet_distance"],
        }
        found |= {key: row["figures"].get(key, {}).get("value") for key in ("precision", "recall")}
        if last and passes:
            stored = passes.get("pairs", passes.get("trajectories", 0))
            found |= {"passes, thousands": round(passes["all"] / 1000), "of these stored": round(stored / 1000)}
            passes = None  # those of the whole run, which are said once
        yield {**found, "worth calls": (row.get("call_equivalence") or {}).get("says")}


def steps(config: Path, share: float) -> Iterator[str]:
    """Yield the settings that shorten the runs of a file to a share of their steps."""
    if share == 1:
        return
    for key, value in yaml.safe_load(config.read_text()).items():
        if key == "steps":
            yield f"steps={round(value * share)}"
        elif isinstance(value, dict) and "steps" in value:
            yield f"{key}.steps={round(value['steps'] * share)}"


def teachers(asked: argparse.Namespace, name: str) -> list[dict[str, Any]]:
    """Return the teacher's best rows at the numbers of calls that tables have."""
    figures = json.loads((asked.output / asked.teacher / name / "evaluation.json").read_text())
    return [
        {
            "sampler": row["name"],
            "calls": row["calls"],
            "Fréchet distance": row["frechet_distance"],
            **{key: row["figures"].get(key, {}).get("value") for key in ("precision", "recall")},
        }
        for row in figures["rows"]
        if row["kind"] == "teacher" and row["best_of"] in (1, 2, 4, 10, 50)
    ]


if __name__ == "__main__":
    main()
