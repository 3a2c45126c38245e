"""The work of ``bootdiff quickstart``: BOOT and a correction on the builtin teacher, with figures and a report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from bootdiff.builtin import builtin_folder
from bootdiff.cli.distill import run_distill
from bootdiff.cli.tables import print_table
from bootdiff.evaluation.evaluate import evaluate_student
from bootdiff.evaluation.measurement import Measurement
from bootdiff.report.build import build_report
from bootdiff.storage.runs import Run

#: the number of noise seeds with which the student is measured
REPEATS = 3


def run_quickstart(output: Path, assign: Sequence[str] = (), num: int = 2000) -> None:
    """Distil the builtin teacher, measure the student and write a report; the same command resumes.

    Args:
        assign: ``KEY=VALUE`` settings that take precedence over the recipe's, such as fewer steps for a trial.
        num: the number of samples measured for each noise seed.
    """
    started = time.monotonic()
    recipe = builtin_folder("digits") / "corrected.yaml"
    run_distill("digits", output, "boot+dm", recipe, list(assign), {}, None, dry_run=False)
    result = evaluate_student(str(output), Measurement(num=num, repeats=REPEATS), Run(output).figures)
    print(f"report: {build_report(output)}   ({time.monotonic() - started:.0f} s in all)")
    print_table(result)  # its last line is what one call is worth, and nothing comes after it
