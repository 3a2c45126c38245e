"""``bootdiff quickstart``: the whole way on the builtin teacher, BOOT and a correction after it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from bootdiff.builtin import builtin_folder
from bootdiff.cli.distill import run_distill
from bootdiff.cli.evaluate import run_evaluate
from bootdiff.cli.measurement import Measurement
from bootdiff.report.build import build_report
from bootdiff.report.verdicts import headline

STEPS_SHOWN = "1,10"


def run_quickstart(output: Path, assign: Sequence[str] = (), num: int = 2000) -> None:
    """Distil, measure, report; the same command resumes.

    Args:
        assign: ``KEY=VALUE`` settings over the recipe's, such as fewer steps for a trial.
        num: samples a noise seed to measure.
    """
    started = time.monotonic()
    recipe = builtin_folder("digits") / "corrected.yaml"
    run_distill("digits", output, "boot+dm", recipe, list(assign), {}, None, dry_run=False)
    measured = output / "evaluation.json"
    result = run_evaluate(
        str(output),
        Measurement(num=num, seed=1, repeats=2),
        measured,
        ddim_steps=STEPS_SHOWN,
        heun=False,
        own_heun=True,
    )
    report = build_report(output)
    print(headline(result))
    print(f"report:  {report}   ({time.monotonic() - started:.0f} s in all)")
