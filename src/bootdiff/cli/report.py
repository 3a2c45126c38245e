"""The work of ``bootdiff report``: it makes a page for one run or several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bootdiff.cli.functions import named_teacher
from bootdiff.core.errors import BootdiffError
from bootdiff.report.build import SEVERAL, build_comparison, build_report


def run_report(runs: Sequence[Path], teacher: str | None, output: Path | None) -> None:
    """Write a page for one run, or one page for several, and print its path.

    Raises:
        BootdiffError: if a teacher is named and there are several runs.
    """
    if len(runs) == 1:
        named = named_teacher(teacher)
        print(f"report: {build_report(runs[0], named, output)}")
        return
    if teacher is not None:
        raise BootdiffError("--teacher is one run's; leave it out where several are set side by side.")
    print(f"report: {build_comparison(runs, output or SEVERAL)}")
