"""What keeps BOOT from the ends of the teacher's path: its error along t, beside a student of the exact states.

    python benchmarks/along.py --output runs/along

Both students have the same network, updates, batch, rate and average, and a fresh noise in every update. The one that
learned by regression was told the exact path (``--method path``), whose making is not counted: what it does not reach
either, bootstrapping is not to blame for. Runs that are there are not made again. With ``--runs`` only their rows are
made anew.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from records import FOLDER, ROOT, new_record, read_record, write_record

from bootdiff.config.settings import make_settings
from bootdiff.core.randomness import sample_noise
from bootdiff.distillation.distill import distill
from bootdiff.methods.registry import find_method
from bootdiff.solvers import SOLVERS, even_times, solve
from bootdiff.teachers import load_teacher

QUICKSTART = ROOT / "src/bootdiff/builtin/digits/quickstart.yaml"
#: of the stored paths: their Heun steps, and the states that are kept
EXACT = {"pair_steps": 14, "trajectory_times": 8}
#: for each row, the method and the settings that differ from the quickstart's
RUNS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "boot": ("boot", {}),
    "boot, boundary in every 2nd step": ("boot", {"boundary_every": 2}),
    "boot, boundary in every step": ("boot", {"boundary_every": 1}),
    "boot, boundary in every step, adaptive weight": ("boot", {"boundary_every": 1, "loss_weight": "adaptive"}),
    "boot, four times the boundary's weight": ("boot", {"boundary_weight": 4.0}),
    "boot, step of 0.1, boundary in every step": ("boot", {"delta": 0.1, "boundary_every": 1}),
    "boot, Heun": ("boot", {"solver": "heun"}),
    "boot, half the step": ("boot", {"delta": 0.03}),
    "boot, adaptive weight": ("boot", {"loss_weight": "adaptive"}),
    "exact states (path)": ("path", EXACT),
}
#: noises whose paths are compared, and the seed of the first
NUM, SEED = 512, 12345
STEPS = 50


def main() -> None:
    """Make the runs and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "along")
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--no-record", action="store_true", help="make the runs, and leave the record as it is")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = table([row for name in asked.runs for row in rows(name, asked.output)])
    if asked.no_record:
        return
    path, commits = FOLDER / "along.json", []
    if set(asked.runs) < set(RUNS) and path.exists():
        old = read_record(path)
        found += [row for row in old.values["along"] if row["student"] not in asked.runs]
        commits = [old.commit]
    found.sort(key=lambda row: list(RUNS).index(row["student"]))
    ends = {row["student"]: list(row.values())[-1] for row in found}
    exact = ends["exact states (path)"]
    ratios = [{"student": name, "end's error": end, "÷ exact states'": end / exact} for name, end in ends.items()]
    record = new_record({"along": found, "ends": ratios}, seeds=(0, SEED), command="python benchmarks/along.py")
    write_record(path, replace(record, commit=", ".join(dict.fromkeys([*commits, record.commit]))))


def rows(name: str, output: Path) -> Iterator[dict[str, Any]]:
    """Train a student and yield its mean squared error at six times of the exact path, from t_max to t_min."""
    method, words = RUNS[name]
    kind = find_method(method).settings
    file = yaml.safe_load(QUICKSTART.read_text())
    common = {key: value for key, value in file.items() if key in kind.model_fields}
    stored = {"pairs": common["steps"] * common["batch_size"]} if method == "path" else {}
    asked = make_settings(kind, common, {**words, **stored, "watch_every": 0, "sample_every": 0})
    teacher = load_teacher("digits")
    student = distill(teacher, output / name.replace(",", "").replace(" ", "-"), asked, method)
    eps = sample_noise(SEED, 0, NUM, teacher.shape)
    times = even_times(STEPS, student.t_min, student.t_max)
    with torch.no_grad():
        states = solve(teacher, eps, times, SOLVERS["heun"])
        for number in range(0, STEPS + 1, 10):
            t = torch.full((NUM,), times[number])
            error = (student(eps, t) - states[number]).square().mean().item()
            yield {"student": name, "of the way": number / STEPS, "t": times[number], "error": error}


def table(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each student, with a column for each time."""
    names = dict.fromkeys(row["student"] for row in found)
    return [
        {"student": name, **{f"t = {row['t']:.2f}": row["error"] for row in found if row["student"] == name}}
        for name in names
    ]


if __name__ == "__main__":
    main()
