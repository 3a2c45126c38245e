"""How well smaller students, and a small transformer, learn of the builtin digits teacher: a record.

    python benchmarks/architectures.py --output runs/students

Each row is a run of ``bootdiff distill`` by BOOT with the quickstart's settings, but for what its columns say, and of
``bootdiff evaluate``. Runs that are there are not made again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from records import FOLDER, ROOT, new_record, write_record

#: the samples of an evaluation
NUM = 2000
#: for each row: the folder in configs/students, the share of the teacher's parameters, and the settings
ROWS = {
    "the teacher's": (None, ()),
    "1/2": ("digits-half", ("boundary_every=1",)),
    "1/4": ("digits-quarter", ("boundary_every=1",)),
    "transformer": ("digits-dit", ("boundary_every=1",)),
}


def main() -> None:
    """Make all runs and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "students")
    parser.add_argument("--record", type=Path, default=FOLDER / "students.json")
    parser.add_argument("--steps", type=int, default=600)
    asked = parser.parse_args()
    rows = [row(name, asked.output, asked.steps, *what) for name, what in ROWS.items()]
    command = f"python benchmarks/architectures.py --steps {asked.steps}"
    write_record(asked.record, new_record({"digits": rows}, seeds=(0,), command=command))


def row(name: str, output: Path, steps: int, folder: str | None, settings: tuple[str, ...]) -> dict[str, object]:
    """Make one run and evaluate it; return its row."""
    run = output / name.replace("/", "-").replace(" ", "-").replace(",", "").replace("'", "")
    words = [f"steps={steps}", "log_every=100", *settings, *([f"student=configs/students/{folder}"] if folder else [])]
    quick = "src/bootdiff/builtin/digits/quickstart.yaml"
    bootdiff("distill", "digits", "--output", run, "--config", quick, *(w for word in words for w in ("--set", word)))
    if not (run / "evaluation.json").exists():
        bootdiff("evaluate", run, "--num", NUM, "--output", run / "evaluation.json")
    done, figures = (json.loads((run / name).read_text()) for name in ("done.json", "evaluation.json"))
    from bootdiff.students.files import load_student

    student = load_student(run)
    first = next(one for one in figures["rows"] if one["kind"] == "student")
    return {
        "network": name,
        "parameters": sum(p.numel() for p in student.network.network.parameters()),
        "passes, thousands": round(done["passes"]["all"] / 1000),
        "of the student": round(done["passes"]["student"] / 1000),
        "seconds": round(done["seconds"]),
        "Fréchet distance": first["frechet_distance"],
        "path error": first["path_error"],
        "one call is worth": figures["call_equivalence"]["says"],
    }


def bootdiff(*words: object) -> None:
    """Run a command, and end with it if it fails."""
    subprocess.run([sys.executable, "-m", "bootdiff", *map(str, words)], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
