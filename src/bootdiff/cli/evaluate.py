"""The work of ``bootdiff evaluate``: it measures a student or a teacher and prints the table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bootdiff.cli.functions import named_teacher
from bootdiff.cli.tables import print_table
from bootdiff.evaluation.evaluate import evaluate_student
from bootdiff.evaluation.measurement import Measurement
from bootdiff.system.progress import is_first_process


def run_evaluate(
    name: str,
    asked: Measurement,
    output: Path,
    teacher: str | None = None,
    teacher_options: Mapping[str, str] | None = None,
    path_end: bool = False,
    everything: bool = False,
    search_times: int | None = None,
) -> None:
    """Measure a student or a teacher, and print the table.

    Args:
        everything: whether the terminal shows every measured row.
        search_times: a number of calls whose best times are searched.
    """
    own = named_teacher(teacher)
    result = evaluate_student(named_teacher(name), asked, output, own, teacher_options, path_end, search_times)
    if is_first_process():
        print_table(result, everything)
