"""The measuring of an ablation's runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bootdiff.ablation.config import Evaluation
from bootdiff.evaluation.evaluate import evaluate_student
from bootdiff.evaluation.measurement import Measurement
from bootdiff.storage.runs import Run


def measure_run(run: Path, asked: Evaluation) -> Mapping[str, Any]:
    """Measure a run, keep the figures in it, and return them."""
    who = asked.features, asked.reference, None
    measured = Measurement(*who, asked.num, asked.seed, asked.repeats, calls=sorted(set(asked.calls)), heun=False)
    return evaluate_student(str(run), measured, Run(run).figures)
