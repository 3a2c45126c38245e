"""The best that each builtin teacher makes in so many calls, to hold its students against. A record.

    python benchmarks/teachers.py

The rows ship with the package (recipes/curves.py made them), so this costs a few minutes. Evaluations that are there
are not made again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from records import FOLDER, ROOT, new_record, write_record

#: the options of each teacher's evaluation
TEACHERS: Mapping[str, tuple[str, ...]] = {
    "digits": (),
    "digits-class": (),
    "digits-text": ("--prompts", "digits"),
    "digits-cascade": ("--prompts", "digits"),
}
#: the numbers of calls in the table
CALLS = (1, 2, 4, 10, 50)


def main() -> None:
    """Evaluate every teacher and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "teachers")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    found = [row for name, options in TEACHERS.items() for row in rows(name, options, output / f"{name}.json")]
    record = new_record({"best": found}, seeds=(0,), command="python benchmarks/teachers.py")
    write_record(FOLDER / "teachers.json", record)


def rows(name: str, options: tuple[str, ...], file: Path) -> Iterator[dict[str, Any]]:
    """Yield the teacher's best rows, the plain DDIM ones that older tables have, and its exact path's."""
    if not file.exists():
        command = [sys.executable, "-m", "bootdiff", "evaluate", name, "--output", str(file), *options]
        subprocess.run(command, check=True)
    for row in json.loads(file.read_text())["rows"]:
        if row["best_of"] in CALLS or (row["best_of"] is None and row["calls"] in (10, 50)) or row["sampler"] == "path":
            figures = {key: row["figures"].get(key, {}).get("value") for key in ("precision", "recall", "faithfulness")}
            yield {
                "teacher": name,
                "sampler": row["name"],
                "calls": row["calls"],
                "Fréchet distance": row["frechet_distance"],
                **figures,
            }


if __name__ == "__main__":
    main()
