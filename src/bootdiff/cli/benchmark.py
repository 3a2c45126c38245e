"""The work of ``bootdiff benchmark``: it plans the runs of several methods, carries them out and prints the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bootdiff.benchmark.plan import PASSES, Asked, BenchmarkPlan, plan_benchmark
from bootdiff.benchmark.results import Result, rows_of
from bootdiff.benchmark.run import Runner
from bootdiff.benchmark.table import cells, title, titled
from bootdiff.config.settings import read_assignments
from bootdiff.core.errors import BootdiffError, shown
from bootdiff.storage.lock import lock, tidy


def run_benchmark(asked: Asked, dry_run: bool) -> None:
    """Plan a benchmark, train and measure its runs, and print its tables; a dry run only prints the plan."""
    plan = plan_benchmark(asked)
    if dry_run:
        print_benchmark_plan(plan)
        return
    with lock(asked.output):
        tidy(asked.output)
        print_tables(plan, Runner(plan).run())
    pictures = sorted(path.name for path in asked.output.glob("*.png"))
    print(f"benchmark: {asked.output}  (benchmark.md, .json{'; ' * bool(pictures)}{', '.join(pictures)})")


def read_methods(words: str | None) -> list[str]:
    """Return the methods of ``--methods A,B,…``; none where the option is not given.

    Raises:
        BootdiffError: if one is named twice, or there is nothing between two commas.
    """
    methods = [] if words is None else [word.strip() for word in words.split(",")]
    if not all(methods) or len(set(methods)) < len(methods):
        raise BootdiffError(f"--methods expects names such as boot,direct,tract, each once, got {shown(words)}.")
    return methods


def read_seeds(words: str) -> list[int]:
    """Return the seeds of ``--training-seeds N,N,…``.

    Raises:
        BootdiffError: if one is no whole number from 0 on, or is there twice.
    """
    parts = [word.strip() for word in words.split(",")]
    seeds = [int(part) for part in parts if part.isascii() and part.isdigit() and len(part) < 19]
    if len(seeds) < len(parts) or len(set(seeds)) < len(seeds):
        raise BootdiffError(f"--training-seeds expects whole numbers such as 0,1,2, each once, got {shown(words)}.")
    return seeds


def read_assigned(assign: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
    """Return the settings of ``--set METHOD.KEY=VALUE`` by method.

    Raises:
        BootdiffError: for a word without a method.
    """
    found = read_assignments(list(assign))
    for method, value in found.items():
        if not isinstance(value, dict):
            raise BootdiffError(f"--set expects METHOD.KEY=VALUE here, such as boot.delta=0.04; got {method}.")
    return found


def print_tables(plan: BenchmarkPlan, results: Sequence[Result]) -> None:
    """Print a table for each kind of budget and number of calls."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 200)
    for (kind, calls), rows in titled(list(rows_of(results))).items():
        head, table = cells(rows)
        drawn = Table(box=None, title=title(plan, kind, calls), title_justify="left")
        for number, column in enumerate(head):
            drawn.add_column(column, justify="left" if number in (0, len(head) - 1) else "right")
        for line in table:
            drawn.add_row(*line)
        console.print(drawn)


def print_benchmark_plan(plan: BenchmarkPlan) -> None:
    """Print what would be done, with a line for each run."""
    print(f"teacher: {plan.teacher.name}, samples of shape {tuple(plan.teacher.shape)}")
    print(f"output: {plan.asked.output}")
    for kind, size in plan.asked.budgets.items():
        print(f"budget: {size:,g} {kind} a run")
        for job in plan.jobs(kind):
            line = f"  {job.method}, seed {job.seed}: {job.folder}"
            if kind == PASSES:
                words = plan.with_passes(job.method, job.words, size)
                line += f", {words['steps']:,} steps{' of the last stage' * ('+' in job.method)}"
            print(line)
    print("nothing was written (--dry-run).")
