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
from typing import Any

from commands import bootdiff
from records import FOLDER, ROOT, new_record, write_record

CONFIGS = ROOT / "configs" / "tuning"
METHODS = sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def main() -> None:
    """Make the runs, and write the record once every method has its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", metavar="METHOD", default=METHODS)
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "tuning")
    asked = parser.parse_args()
    for method in asked.methods:
        bootdiff("ablate", CONFIGS / f"{method}.yaml", "--output", asked.output / method)
    missing = [name for name in METHODS if not (asked.output / name / "ablation.json").exists()]
    if missing:
        print(f"no record yet: {', '.join(missing)} have no runs in {asked.output}.")
        return
    tables = {"runs": [row for name in METHODS for row in rows(name, asked.output / name)]}
    record = new_record(tables, seeds=(0,), command="python benchmarks/tuning.py")
    write_record(FOLDER / "tuning.json", record)


def rows(method: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each run of a method; the best says so."""
    told = json.loads((folder / "ablation.json").read_text(encoding="utf-8"))
    runs = [row for row in told["rows"] if row["kind"] == "student"]
    best = min(row["frechet_distance"] for row in runs)
    for row in runs:
        figures = row["figures"]
        yield {
            "method": method,
            "settings": row["label"],
            "Fréchet distance": row["frechet_distance"],
            "precision": figures["precision"]["value"],
            "recall": figures["recall"]["value"],
            "best": "yes" if row["frechet_distance"] == best else "",
        }


if __name__ == "__main__":
    main()
