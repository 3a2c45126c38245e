"""The table of an ablation, as JSON, CSV and Markdown, and as cells for the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bootdiff.ablation.config import Ablation
from bootdiff.ablation.results import Line, columns
from bootdiff.ablation.variants import Design
from bootdiff.samplers.rows import student_row
from bootdiff.storage.files import write_json, write_text
from bootdiff.storage.runs import environment
from bootdiff.system.invoked import command

DASH = "–"


def write_tables(folder: Path, ablation: Ablation, design: Design, table: Sequence[Line]) -> None:
    """Write ``ablation.json``, ``ablation.csv`` and ``ablation.md``."""
    rows = [_json_row(line) for line in table]
    words = {"command": command(), "config": ablation.model_dump(), "seeds": list(design.seeds)}
    write_json(folder / "ablation.json", {**words, "rows": rows, **environment()})
    write_text(folder / "ablation.csv", comma_separated(table))
    write_text(folder / "ablation.md", document(folder, ablation, design, table))


def _json_row(line: Line) -> dict[str, Any]:
    kind = "teacher" if line.variant is None else "student"
    words: dict[str, Any] = {"label": line.label, "kind": kind, "figures": line.figures}
    if line.variant is None:
        return {**words, **(line.row or {}), "figures": line.figures}
    row = next((student for run in line.runs if (student := student_row(run.rows)) is not None), {})
    words = {**row, **words, "frechet_distance": line.figures.get("frechet_distance", {}).get("value")}
    told = {"name": line.variant.name, "changed": line.variant.changed, "verdict": line.verdict}
    return {**words, **told, "seconds": line.seconds, "runs": [run.as_json() for run in line.runs]}


def cells(table: Sequence[Line]) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of the table; figures that no line has are left out."""
    wanted = columns(table)
    worth = any(run.worth for line in table for run in line.runs)
    head = ["variant", *(heading for heading, _ in wanted.values()), *(["worth calls"] * worth), "verdict", "seconds"]
    rows = [
        [
            line.label,
            *(_cell(line.figures.get(name), form) for name, (_, form) in wanted.items()),
            *([" / ".join(dict.fromkeys(run.worth for run in line.runs if run.worth)) or DASH] * worth),
            line.verdict or DASH,
            DASH if line.seconds is None else f"{line.seconds:.0f}",
        ]
        for line in table
    ]
    return head, rows


def _cell(figure: Mapping[str, Any] | None, form: str) -> str:
    if figure is None:
        return DASH
    if "seeds" not in figure:
        return format(figure["value"], form)
    return f"{figure['value']:{form}} ({figure['low']:{form}} to {figure['high']:{form}})"


def comma_separated(table: Sequence[Line]) -> str:
    """Return the text of the CSV file: every figure with its interval, unrounded."""
    names = list(columns(table))
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    ends = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    writer.writerow(["variant", "name", *ends, "verdict", "seconds", "runs"])
    for line in table:
        known = [line.figures.get(name, {}) for name in names]
        values = [figure.get(key) for figure in known for key in ("value", "low", "high")]
        name = "" if line.variant is None else line.variant.name
        writer.writerow([line.label, name, *values, line.verdict, line.seconds, len(line.runs)])
    return buffer.getvalue()


def document(folder: Path, ablation: Ablation, design: Design, table: Sequence[Line]) -> str:
    """Return the text of the Markdown file: the table, what was said of every run, and the pictures that exist."""
    head, rows = cells(table)
    drawn = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    said = [f"- {name}: {reason}" for name, reason in _reasons(design, table)]
    names = ["samples", "path", *(axis.key for axis in design.axes), "curves"]
    pictures = [f"![{name}]({name}.png)" for name in names if (folder / f"{name}.png").exists()]
    title = f"# Ablation of {Path(ablation.teacher).name}"
    parts = [title, "", f"    {command()}", "", *drawn, "", _about(ablation, design), "", *said, ""]
    return "\n".join([*parts, *(line for picture in pictures for line in (picture, ""))])


def _reasons(design: Design, table: Sequence[Line]) -> list[tuple[str, str]]:
    several = len(design.seeds) > 1
    return [
        (f"{line.label}, seed {run.job.seed}" if several else line.label, run.reason)
        for line in table
        for run in line.runs
        if run.reason
    ]


def _about(ablation: Ablation, design: Design) -> str:
    """Return text that says how the figures were made."""
    asked = ablation.evaluate
    seeds = f"training seed {design.seeds[0]}"
    if len(design.seeds) > 1:
        seeds = f"training seeds {', '.join(map(str, design.seeds))}: means, and the lowest and the highest"
    baseline = f"The baseline has {', '.join(design.of_the_baseline)}. " if design.axes else ""
    return (
        f"{baseline}{asked.num:,} samples a noise seed, {asked.repeats} noise seed(s) from {asked.seed}, the same for "
        f"all; {seeds}. Path error: mean squared difference to the end of the path that a student learns, 50 Heun "
        "steps of its teacher from the student's own t_max, for the first 128 noises. The verdict is on the run's "
        "convergence; seconds are of training."
    )
