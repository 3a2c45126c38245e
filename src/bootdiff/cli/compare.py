"""The work of ``bootdiff compare``: it compares students and prints the table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bootdiff.cli.functions import named_teacher
from bootdiff.cli.tables import print_table
from bootdiff.cli.words import read_counts
from bootdiff.evaluation.compare import compare_students
from bootdiff.evaluation.measurement import Measurement
from bootdiff.system.progress import is_first_process


def run_compare(
    students: Sequence[str],
    teacher: str | None,
    asked: Measurement,
    samplers: Sequence[str],
    output: Path,
    refine: str = "",
    level: float | None = None,
    everything: bool = False,
) -> None:
    """Compare students, and print the table.

    Args:
        refine: words ``k,k,...``: numbers of teacher steps; each student also gets a row with each of them.
        everything: whether the terminal shows every measured row.
    """
    counts = read_counts(refine, "--refine") if refine else []
    own = named_teacher(teacher)
    result = compare_students(students, asked, output, own, samplers, counts, level)
    if is_first_process():
        print_table(result, everything)
        print(f"comparison: {output}  (compare.md, .csv, .json; quality.png, samples.png)")
