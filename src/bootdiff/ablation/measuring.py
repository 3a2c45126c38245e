"""What an ablation measures of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bootdiff.ablation.config import Evaluation
from bootdiff.evaluation.evaluate import evaluate_student
from bootdiff.evaluation.measurement import Measurement
from bootdiff.storage.runs import Run


def measure_run(run: Path, asked: Evaluation) -> Mapping[str, Any]:
    """A run's figures, also kept in it."""
    who = asked.features, asked.reference, None
    measured = Measurement(*who, asked.num, asked.seed, asked.repeats, calls=sorted(set(asked.calls)), heun=False)
    return evaluate_student(str(run), measured, Run(run).figures)
