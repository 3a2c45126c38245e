"""What is known of every run, read from its folder.

The folders hold everything, so a table can be made at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from bootdiff.ablation.config import Evaluation
from bootdiff.ablation.variants import OF_THE_TEACHER, Design, Job, Variant, shown
from bootdiff.evaluation.figures import headings
from bootdiff.evaluation.table import read_evaluation
from bootdiff.monitoring.convergence import first_failure, verdict_of
from bootdiff.samplers.rows import student_row
from bootdiff.storage.files import write_json
from bootdiff.storage.passes import trained_passes
from bootdiff.storage.runs import trained_seconds

State = Literal["waiting", "failed", "trained", "measured"]
#: the word for a run whose loss was not finite
NOT_FINITE = "unstable: not finite"
#: the entry of a run's evaluation in which an ablation keeps what was asked
MARK = "ablation"


@dataclass(frozen=True)
class Outcome:
    """What is known of one run.

    Args:
        state: how far the run is.
        verdict, reason: the verdict on its convergence, or what went wrong, and why.
        seconds: the seconds that training took.
        rows: the rows of its evaluation.
    """

    job: Job
    state: State
    verdict: str = ""
    reason: str = ""
    seconds: float | None = None
    rows: Sequence[Mapping[str, Any]] = ()
    passes: Mapping[str, Any] | None = None

    @property
    def figures(self) -> dict[str, Mapping[str, Any]]:
        """Return the student's figures by name, each with value, low and high."""
        student = student_row(self.rows)
        return {} if student is None else figures_of(student)

    @property
    def worth(self) -> str:
        """Return how many of its teacher's calls its one call is worth, in words; empty if it is not known."""
        told = (student_row(self.rows) or {}).get("call_equivalence") or {}
        return told["says"] if told.get("beside") else ""

    def as_json(self) -> dict[str, Any]:
        """Return the outcome as a dictionary that can be written as JSON."""
        words = {"folder": f"runs/{self.job.folder.name}", "seed": self.job.seed, "state": self.state}
        told = {"verdict": self.verdict, "reason": self.reason, "seconds": self.seconds, "passes": self.passes}
        return {**words, **told, "row": student_row(self.rows), "figures": self.figures}


@dataclass(frozen=True)
class Line:
    """A line of the table: a variant over its seeds, or a sampler of the teacher.

    Args:
        figures: figures by name, each with value, low and high; over several seeds, their mean and range.
        runs: the variant's runs; none in a line of the teacher.
        row: the measured row, in a line of the teacher.
    """

    label: str
    figures: Mapping[str, Mapping[str, Any]]
    variant: Variant | None = None
    verdict: str = ""
    seconds: float | None = None
    runs: Sequence[Outcome] = field(default=())
    row: Mapping[str, Any] | None = None


def figures_of(row: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return a row's figures by name, with its path error."""
    known: dict[str, Mapping[str, Any]] = dict(row["figures"])
    if row["path_error"] is not None:
        known.setdefault("path_error", {"value": row["path_error"], "low": None, "high": None})
    return known


def read_outcome(job: Job, evaluation: Evaluation) -> Outcome:
    """Return what a run's folder says.

    Figures that were asked for in another way count as none.
    """
    done = job.folder / "done.json"
    if not done.exists():
        failure = first_failure(job.folder)
        if failure is None:
            return Outcome(job, "waiting")
        told = f"the {failure['what']} is not finite at step {failure['step']}; remove {job.folder} to train it again."
        return Outcome(job, "failed", NOT_FINITE, told)
    seconds, passes, verdict = trained_seconds(job.folder), trained_passes(job.folder), verdict_of(job.folder)
    rows = _rows(job.folder, evaluation)
    return Outcome(job, "measured" if rows else "trained", verdict.word, verdict.sentence, seconds, rows, passes)


def _rows(folder: Path, evaluation: Evaluation) -> Sequence[Mapping[str, Any]]:
    held = read_evaluation(folder) or {}
    return held["rows"] if held.get(MARK) == evaluation.model_dump() else ()


def mark_evaluation(folder: Path, result: Mapping[str, Any], evaluation: Evaluation) -> None:
    """Keep a run's figures with what was asked, so that they are made anew when something else is asked."""
    write_json(folder / "evaluation.json", {**result, MARK: evaluation.model_dump()})


def lines(design: Design, outcomes: Sequence[Outcome]) -> list[Line]:
    """Return the lines of the table: the teacher's rows, then every variant once."""
    by_variant: dict[str, list[Outcome]] = {variant.name: [] for variant in design.variants}
    for outcome in outcomes:
        by_variant[outcome.job.variant.name].append(outcome)
    return [
        *_teacher_lines(design, outcomes),
        *(_variant_line(variant, by_variant[variant.name]) for variant in design.variants),
    ]


def _variant_line(variant: Variant, runs: Sequence[Outcome]) -> Line:
    verdicts = [run.verdict for run in runs if run.verdict]
    seconds = [run.seconds for run in runs if run.seconds is not None]
    figures = _over_seeds([run.figures for run in runs if run.figures])
    words = " / ".join(dict.fromkeys(verdicts)) or "not trained yet"
    return Line(variant.label, figures, variant, words, fmean(seconds) if seconds else None, runs)


def _over_seeds(seeds: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Mapping[str, Any]]:
    """Return the figures of one seed as they are, or the mean and the range of several seeds' figures."""
    if len(seeds) == 1:
        return dict(seeds[0])
    names = dict.fromkeys(name for figures in seeds for name in figures)
    known = {name: [figures[name]["value"] for figures in seeds if name in figures] for name in names}
    return {
        name: {"value": fmean(values), "low": min(values), "high": max(values), "seeds": len(values)}
        for name, values in known.items()
    }


def _teacher_lines(design: Design, outcomes: Sequence[Outcome]) -> list[Line]:
    """Return the lines of the teacher's rows, once for every guidance."""
    varied = [
        key
        for key in OF_THE_TEACHER
        if len({shown(getattr(variant.settings, key, None)) for variant in design.variants}) > 1
    ]
    found: dict[str, Line] = {}
    for outcome in outcomes:
        settings = outcome.job.variant.settings
        words = [f"{key} = {shown(getattr(settings, key, None))}" for key in varied]
        for row in outcome.rows:
            if row["kind"] == "teacher" and row["start"] is None:
                label = ", ".join([f"teacher, {row['name']}", *words])
                found.setdefault(label, Line(label, figures_of(row), row=row))
    return list(found.values())


def columns(table: Sequence[Line]) -> dict[str, tuple[str, str]]:
    """Return the heading and format of the figures that any line has, the most important first."""
    every = headings()
    known = {name: every[name] for name in ("frechet_distance", "path_error", *every)}
    return {name: words for name, words in known.items() if any(name in line.figures for line in table)}
