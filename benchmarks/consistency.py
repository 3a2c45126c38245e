"""The consistency paper's Fig. 3 and 4 on the builtin digits: metric, solver, N and mu; and CD beside PD. A record.

    python benchmarks/consistency.py [--output runs/consistency] [--methods runs/methods]

writes docs/records/consistency.json and docs/consistency.png. Fig. 3 is two ablations, of the files
``configs/ablate-consistency.yaml`` and ``configs/ablate-consistency-training.yaml``. Fig. 4 is of the runs of
``python benchmarks/methods.py digits``. Runs that are there are not made again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from commands import bootdiff
from matplotlib.axes import Axes
from records import FOLDER, ROOT, new_record, write_record

#: the names of both ablations, each a file ablate-NAME.yaml
DISTILLATION, TRAINING = "consistency", "consistency-training"
#: the methods of Fig. 4 and their words in the picture
SIDES = {"consistency": "CD", "progressive": "PD"}
CALLS = (1, 2, 4, 8)
PICTURE = ROOT / "docs" / "consistency.png"


def main() -> None:
    """Make the runs, the record and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "consistency")
    parser.add_argument("--methods", type=Path, default=ROOT / "runs" / "methods", help="of benchmarks/methods.py")
    asked = parser.parse_args()
    tables: dict[str, list[dict[str, Any]]] = {"calls": list(calls(asked.methods / "digits" / "passes"))}
    if {row["method"] for row in tables["calls"]} != set(SIDES.values()):
        sys.exit(f"{asked.methods} has no runs of {' and '.join(SIDES)}; first: python benchmarks/methods.py digits")
    for name in (DISTILLATION, TRAINING):
        bootdiff("ablate", ROOT / "configs" / f"ablate-{name}.yaml", "--output", asked.output / name)
        tables[name] = list(variants(asked.output / name))
    record = new_record(
        tables, seeds=range(max(row["runs"] for row in tables["calls"])), command="python benchmarks/consistency.py"
    )
    write_record(FOLDER / "consistency.json", record)
    draw(tables)


def variants(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each run of an ablation, with the settings that vary as columns."""
    told = json.loads((folder / "ablation.json").read_text(encoding="utf-8"))
    for row in told["rows"]:
        if row["kind"] == "student":
            settings = dict(pair.split(" = ") for pair in row["label"].split(", "))
            figures = {key: row["figures"].get(key, {}).get("value") for key in ("precision", "recall")}
            yield {**settings, "Fréchet distance": row["frechet_distance"], **figures}


def calls(runs: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each method and number of calls, a mean over training seeds."""
    for method, word in SIDES.items():
        rows = [row for run in sorted(runs.glob(f"{method}/seed-*")) for row in students(run)]
        for number in CALLS:
            same = [row for row in rows if row["calls"] == number]
            if same:
                yield {
                    "method": word,
                    "calls": number,
                    "Fréchet distance": fmean(row["frechet_distance"] for row in same),
                    "precision": fmean(row["figures"]["precision"]["value"] for row in same),
                    "recall": fmean(row["figures"]["recall"]["value"] for row in same),
                    "runs": len(same),
                }


def students(run: Path) -> list[dict[str, Any]]:
    """Return the students' rows of a run's evaluation."""
    held = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    return [row for row in held["rows"] if row["kind"] == "student"]


def draw(tables: dict[str, list[dict[str, Any]]]) -> None:
    """Write the picture: one panel for each solver of CD, one for CT, one for CD beside PD."""
    figure, panels = plt.subplots(1, 4, figsize=(15, 3.6), layout="constrained")
    for panel, solver in zip(panels, ("euler", "heun"), strict=False):
        rows = [row for row in tables[DISTILLATION] if row["solver"] == solver]
        lines(panel, rows, "grid", "distance")
        panel.set(title=f"CD, {solver.capitalize()}", xlabel="N")
    rows = [{**row, "which": f"{row['grid_growth']}, mu {row['target_decay']}"} for row in tables[TRAINING]]
    lines(panels[2], rows, "grid", "which")
    panels[2].set(title="CT: N and mu, fixed or growing", xlabel="N at the end")
    lines(panels[3], tables["calls"], "calls", "method")
    panels[3].set(title="CD beside PD", xlabel="calls")
    for panel in panels:
        panel.set(yscale="log", xscale="log")
        panel.legend(fontsize=7)
    panels[0].set_ylabel("Fréchet distance")
    figure.savefig(PICTURE, dpi=110)


def lines(panel: Axes, rows: Iterable[dict[str, Any]], along: str, by: str) -> None:
    """Draw a line for each value of the column ``by``, over the column ``along``."""
    rows = list(rows)
    for name in dict.fromkeys(row[by] for row in rows):
        same = sorted((float(row[along]), row["Fréchet distance"]) for row in rows if row[by] == name)
        panel.plot(*zip(*same, strict=True), marker="o", markersize=3, label=name)
    numbers = sorted({float(row[along]) for row in rows})
    panel.set_xticks(numbers, [f"{number:g}" for number in numbers], minor=False)
    panel.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())


if __name__ == "__main__":
    main()
