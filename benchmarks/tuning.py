"""Which settings each method has in ``bootdiff benchmark``: four short runs for each, compared. A record.

    python benchmarks/tuning.py [METHOD ...] [--output runs/tuning]     # writes docs/records/tuning.json

The runs are those of ``bootdiff ablate configs/tuning/METHOD.yaml``. Runs that are there are not made again. In
``src/bootdiff/benchmark/recipes`` are the values of the best run.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from commands import bootdiff
from records import FOLDER, ROOT, new_record, write_record

CONFIGS = ROOT / "configs" / "tuning"
#: the runs of a method
RUNS = 4
METHODS = sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def main() -> None:
    """Make the runs, and write the record once every method has its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", metavar="METHOD", default=METHODS)
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "tuning")
    asked = parser.parse_args()
    for method in asked.methods:
        bootdiff("ablate", CONFIGS / f"{method}.yaml", "--output", asked.output / method)
    found = {name: list(rows(name, asked.output / name)) for name in METHODS}
    missing = [name for name, runs in found.items() if len(runs) < RUNS]
    if missing:
        print(f"no record yet: {', '.join(missing)} have fewer than {RUNS} runs in {asked.output}.")
        return
    tables = {"runs": [row for runs in found.values() for row in runs]}
    record = new_record(tables, seeds=(0,), command="python benchmarks/tuning.py")
    write_record(FOLDER / "tuning.json", record)


def rows(method: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each finished run of a method; the best says so, and one that failed has no figures."""
    path = folder / "ablation.json"
    told = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    runs = [row for row in told if row["kind"] == "student" and all(run["state"] != "waiting" for run in row["runs"])]
    best = min((row["frechet_distance"] for row in runs if row["frechet_distance"] is not None), default=None)
    for row in runs:
        passes = [run["passes"]["all"] for run in row["runs"] if run["passes"]]
        yield {
            "method": method,
            "settings": row["label"],
            "passes, thousands": round(fmean(passes) / 1000) if passes else None,
            "Fréchet distance": row["frechet_distance"],
            **{key: row["figures"].get(key, {}).get("value") for key in ("precision", "recall")},
            "best": "yes" if best is not None and row["frechet_distance"] == best else "",
        }


if __name__ == "__main__":
    main()
