"""The work of ``bootdiff ablate``: it plans an ablation, carries it out and prints the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bootdiff.ablation.results import Line
from bootdiff.ablation.run import AblationPlan, Runner, plan_ablation
from bootdiff.ablation.table import cells
from bootdiff.ablation.variants import shown
from bootdiff.storage.lock import lock, tidy
from bootdiff.storage.runs import trained_seconds

if TYPE_CHECKING:
    from bootdiff.methods.settings import DistillationSettings


def run_ablate(config: Path, output: Path, dry_run: bool) -> None:
    """Plan an ablation, train and measure its variants, and print the table; a dry run only prints the plan."""
    plan = plan_ablation(config, output)
    if dry_run:
        print_ablation_plan(plan)
        return
    with lock(plan.folder):
        tidy(plan.folder)
        print_lines(Runner(plan).run())
    pictures = sorted(path.name for path in output.glob("*.png"))
    print(f"ablation: {output}  (ablation.md, .csv, .json{'; ' if pictures else ''}{', '.join(pictures)})")


def print_lines(table: Sequence[Line]) -> None:
    """Print the table of an ablation on the terminal."""
    from rich.console import Console
    from rich.table import Table

    head, rows = cells(table)
    drawn = Table(box=None)
    for number, column in enumerate(head):
        drawn.add_column(column, justify="left" if number == 0 or column == "verdict" else "right")
    for line, row in zip(table, rows, strict=True):
        drawn.add_row(*row, style="dim" if line.variant is None else None)
    Console(width=None if Console().is_terminal else 160).print(drawn)


def print_ablation_plan(plan: AblationPlan) -> None:
    """Print what would be done, with a line for each variant."""
    first = plan.resolved[plan.jobs[0].folder]
    print(f"teacher: {plan.teacher.name}, samples of shape {tuple(plan.teacher.shape)}")
    print(f"method: {plan.ablation.method}")
    print(f"output: {plan.folder}")
    print(f"settings of {plan.jobs[0].variant.label}:")
    for key, value in first.model_dump().items():
        print(f"  {key}: {shown(value)}")
    print("variants:")
    finished = Counter(job.variant.name for job in plan.jobs if job.folder in plan.finished)
    for number, variant in enumerate(plan.design.variants, 1):
        done = finished[variant.name]
        told = f"  ({done} of {len(plan.design.seeds)} trained)" if done else ""
        print(f"  {number}. {variant.label}: {plan.folder}/runs/{variant.name}{told}")
    print(f"seeds: {', '.join(map(str, plan.design.seeds))}")
    count, minutes = len(plan.jobs) - len(plan.finished), _minutes(plan)
    print(f"time: {count} runs, {minutes:.2g} minutes of training on this machine, roughly")
    print("nothing was written (--dry-run).")


def _minutes(plan: AblationPlan) -> float:
    """Return the minutes that the runs not trained yet will take, roughly.

    They are estimated from the runs that are trained, or from one small pass if there are none.
    """
    from bootdiff.cli.inspect import estimate
    from bootdiff.methods.settings import calls_a_target
    from bootdiff.training.planned import planned_passes

    def passes(settings: DistillationSettings) -> float:
        return planned_passes(settings, calls_a_target(settings, plan.teacher))["all"]

    asked = {folder: cast("DistillationSettings", settings) for folder, settings in plan.resolved.items()}
    known = [asked[job.folder] for job in plan.jobs if job.folder in plan.finished]
    missing = [asked[job.folder] for job in plan.jobs if job.folder not in plan.finished]
    if known:
        seconds = sum(map(trained_seconds, plan.finished))
        return seconds / sum(map(passes, known)) * sum(map(passes, missing)) / 60
    sizes = {settings.batch_size for settings in missing}
    a_sample = {size: estimate(plan.teacher, size)["pass_seconds"] / size for size in sizes}
    return sum(a_sample[settings.batch_size] * passes(settings) for settings in missing) / 60
