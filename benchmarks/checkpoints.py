"""The figures of a run's student on its way: of the averaged weights in every checkpoint that the run kept.

python benchmarks/checkpoints.py RUN … [--num 10000] [--repeats 3]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from bootdiff.evaluation.engine import Engine
from bootdiff.evaluation.entries import chooser_of, rows_beside
from bootdiff.evaluation.measurement import Measurement
from bootdiff.sampling.opening import open_pair
from bootdiff.storage.files import load_tensors, read_json
from bootdiff.students import Student


def main() -> None:
    """Print a line for each checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--num", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for run in asked.runs:
        for row in checkpoint_rows(run, Measurement(num=asked.num, repeats=asked.repeats)):
            words = (
                f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
            )
            print(run.name, ", ".join(words), flush=True)


def checkpoint_rows(run: Path, asked: Measurement) -> Iterator[dict[str, Any]]:
    """Yield step, passes, seconds and figures of every checkpoint of a run that came to its end."""
    pair = open_pair(str(run), None, None, asked.choice)
    judges, _ = asked.judges(pair.teacher, pair.texts)
    chooser = chooser_of(str(run), pair, Engine(judges, asked.noises), asked.labels_of(str(run)))
    entry = rows_beside(str(run), pair, chooser.listed, asked.labels_of(str(run)), False)[-1]
    for path in sorted((run / "checkpoints").glob("step-*")):
        state = read_json(path / "state.json")
        put_averages(entry.candidate.sample.student, path)  # type: ignore[attr-defined]
        (row,) = chooser.engine.rows([entry])
        figures = {key: row["figures"][key]["value"] for key in ("precision", "recall") if key in row["figures"]}
        yield {
            "step": state["step"],
            "passes, thousands": round(sum(state["passes"].values()) / 1000),
            "seconds": round(state["seconds"], 1),
            "Fréchet distance": row["frechet_distance"],
            **figures,
            "path error": row["path_error"],
        }


def put_averages(student: Student, checkpoint: Path) -> None:
    """Give a student, all of whose weights learned, the averaged ones of a checkpoint.

    Raises:
        ValueError: if the checkpoint has another number of averages than the student has weights.
    """
    averages = load_tensors(checkpoint / "student.ema.safetensors")
    student.load_state_dict(load_tensors(checkpoint / "student.weights.safetensors"))
    parameters = list(student.parameters())
    if len(parameters) != len(averages):
        raise ValueError(f"{checkpoint}: expected {len(parameters)} averages, got {len(averages)}.")
    with torch.no_grad():
        for number, parameter in enumerate(parameters):
            parameter.copy_(averages[str(number)])


if __name__ == "__main__":
    main()
