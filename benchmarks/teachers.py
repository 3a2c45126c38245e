"""The best that each builtin teacher makes in so many calls, to hold its students against. A record.

    python benchmarks/teachers.py

Without guidance the rows ship with the package (recipes/curves.py made them), so they cost nothing; at weight 2 they
are measured for 1, 4 and 10 guided steps, each of which is two calls. Evaluations that are there are not made again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from records import FOLDER, ROOT, new_record, write_record

PROMPTS = ("--prompts", "digits")
#: the teacher, its guidance weight, and the options of its evaluation
TEACHERS = (
    ("digits", 1, ()),
    ("digits-class", 1, ()),
    ("digits-text", 1, PROMPTS),
    ("digits-cascade", 1, PROMPTS),
    ("digits-class", 2, ()),
    ("digits-text", 2, PROMPTS),
)


def main() -> None:
    """Evaluate every teacher and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "teachers")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    found = [row for name, weight, options in TEACHERS for row in rows(name, weight, options, output)]
    write_record(
        FOLDER / "teachers.json", new_record({"best": found}, seeds=(0,), command="python benchmarks/teachers.py")
    )


def rows(name: str, weight: int, options: tuple[str, ...], output: Path) -> Iterator[dict[str, Any]]:
    """Yield the teacher's best rows, and its exact path's."""
    file = output / f"{name}-w{weight}.json"
    if weight > 1:
        options = (*options, "--guidance-scale", str(weight), "--calls", "2,8,20")
    if not file.exists():
        command = [sys.executable, "-m", "bootdiff", "evaluate", name, "--output", str(file), *options]
        subprocess.run(command, check=True)
    for row in json.loads(file.read_text())["rows"]:
        if row["best_of"] in (1, 2, 4, 8, 10, 20, 50) or row["sampler"] == "path":
            figures = {key: row["figures"].get(key, {}).get("value") for key in ("precision", "recall", "faithfulness")}
            yield {
                "teacher": name,
                "w": weight,
                "sampler": row["name"],
                "calls": row["calls"],
                "Fréchet distance": row["frechet_distance"],
                **figures,
            }


if __name__ == "__main__":
    main()
