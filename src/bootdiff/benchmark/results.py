"""What is known of a benchmark's runs, read from their folders, and its rows, which are means over training seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from bootdiff.core.errors import BootdiffError, first_line
from bootdiff.evaluation.table import read_evaluation
from bootdiff.methods.registry import find_method
from bootdiff.storage.passes import trained_passes
from bootdiff.storage.runs import DONE, Run, read_done, trained_seconds

#: the entry of a run's evaluation in which a benchmark keeps what was asked
MARK = "benchmark"
#: what of a benchmark's identity a run's figures depend on
MEASURED = ("features", "reference", "clip", "labels", "num", "seed", "repeats", "calls")
#: the numbers of calls that every method has a line for
CALLS = (1, 2)
#: the figures by which a table is sorted: the first one that any of its rows has
RANKS = ("frechet_distance", "path_error")


def mark_of(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run's figures must have in common with a benchmark."""
    return {key: identity[key] for key in MEASURED}


@dataclass(frozen=True)
class Result:
    """A run that is trained and measured.

    Args:
        kind: of its budget.
        rows: the measured rows of its student, and of its earlier stages'.
        teacher: the measured rows of the teacher.
        source: what it learned from, in a word or two.
        peak_memory: the bytes that its training held at most; None where it is not known.
        weight: the guidance weight of its images; the middle one of a range.
    """

    method: str
    kind: str
    seed: int
    folder: Path
    rows: Sequence[Mapping[str, Any]]
    teacher: Sequence[Mapping[str, Any]]
    passes: float | None
    seconds: float
    source: str
    peak_memory: int | None
    weight: float = 1.0

    def at(self, calls: int) -> Mapping[str, Any] | None:
        """Return the row of the student with so many calls; None where the method has none.

        It is the finished student's, or that of the round which made a student of so many calls.
        """
        same = [row for row in self.rows if row["calls"] == calls]
        finished = [row for row in same if row["stage"] is None]
        return next(iter(finished), same[-1] if same and calls > 1 else None)

    @property
    def own_calls(self) -> int:
        """Return the calls for an image of the student as it was made."""
        return int(next(row for row in self.rows if row["stage"] is None)["calls"])


def read_result(folder: Path, identity: Mapping[str, Any] | None = None) -> Result | None:
    """Return what a run's folder says; None unless it is trained, and measured as the benchmark asks."""
    if not (folder / DONE).exists():
        return None
    held = read_evaluation(folder) or {}
    if MARK not in held or (identity is not None and held[MARK] != mark_of(identity)):
        return None
    method, run, rows = folder.parent.name, Run(folder), held["rows"]
    passes = trained_passes(folder)
    stages = [*run.earlier, run]
    peaks = [peak for stage in stages if (peak := read_done(stage.folder).get("peak_memory")) is not None]
    return Result(
        method,
        folder.parent.parent.name,
        int(folder.name.rpartition("-")[2]),
        folder,
        [row for row in rows if row["kind"] == "student"],
        [row for row in rows if row["kind"] == "teacher"],
        None if passes is None else passes["all"],
        trained_seconds(folder),
        source_of(run),
        max(peaks, default=None),
        weight_of(run),
    )


def weight_of(run: Run) -> float:
    """Return the guidance weight of a run's images; the middle one of a range, and 1 without guidance."""
    asked, scale = run.settings.get("guidance_range"), run.settings.get("guidance_scale")
    return fmean(asked) if asked else 1.0 if scale is None else float(scale)


def source_of(run: Run) -> str:
    """Return what a run's stages learned from, such as ``noise`` or ``noise, then pairs``."""
    words = []
    for stage in (*run.earlier, run):
        method = str(stage.config["method"]).split("+")[-1]
        words.append(stage.settings.get("source") or find_method(method).sources[0])
    return ", then ".join(dict.fromkeys(words))


def results_in(folder: Path, identity: Mapping[str, Any]) -> tuple[list[Result], dict[Path, str]]:
    """Return all runs of a benchmark's folder that are trained and measured, by kind, method and seed.

    Returns:
        The runs; and of those whose files cannot be read, the reasons by their folders.
    """
    found, damaged = [], {}
    for path in sorted(folder.glob(f"*/*/seed-*/{DONE}")):
        run = path.parent
        if not run.name.removeprefix("seed-").isdecimal():
            continue
        try:
            result = read_result(run, identity)
        except BootdiffError as error:
            damaged[run] = first_line(error)
        else:
            found += [] if result is None else [result]
    return found, damaged


def rows_of(results: Sequence[Result]) -> Iterator[dict[str, Any]]:
    """Yield the rows of the table: for each kind of budget, numbers of calls and method one, the best methods first."""
    for kind in dict.fromkeys(result.kind for result in results):
        by_method: dict[str, list[Result]] = {}
        for result in results:
            if result.kind == kind:
                by_method.setdefault(result.method, []).append(result)
        own = {runs[0].own_calls for runs in by_method.values()} - set(CALLS)
        for calls in (*CALLS, *sorted(own)):
            rows = [_row(runs, kind, calls) for runs in by_method.values() if calls in CALLS or runs[0].at(calls)]
            if any(row["figures"] for row in rows):
                yield from ranked(rows)


def ranked(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a table's rows, the best first: by Fréchet distance, or where no row has one by path error."""
    by = next((name for name in RANKS if any(name in row["figures"] for row in rows)), RANKS[0])
    figures = {row["method"]: row["figures"].get(by, {}).get("value") for row in rows}
    return sorted(rows, key=lambda row: (figures[row["method"]] is None, figures[row["method"]] or 0.0, row["method"]))


def _row(runs: Sequence[Result], kind: str, calls: int) -> dict[str, Any]:
    """Return one method's row: means over training seeds, with the lowest and the highest where there are several."""
    rows = [row for run in runs if (row := run.at(calls)) is not None]
    known = [dict(row["figures"]) for row in rows]
    for figures, row in zip(known, rows, strict=True):
        if row["path_error"] is not None:
            figures.setdefault("path_error", {"value": row["path_error"]})
    names = [name for name in (known[0] if known else ()) if all(name in figures for figures in known)]
    speeds = [row["images_per_second"] for row in rows]
    peaks = [run.peak_memory for run in runs if run.peak_memory is not None]
    passes = [run.passes for run in runs if run.passes is not None]
    return {
        "method": runs[0].method,
        "budget": kind,
        "source": runs[0].source,
        "calls": calls,
        "seeds": [run.seed for run in runs],
        "passes": fmean(passes) if len(passes) == len(runs) else None,
        "seconds": fmean(run.seconds for run in runs),
        "peak_memory": max(peaks, default=None),
        "figures": {name: _over([figures[name]["value"] for figures in known]) for name in names},
        "worth": [(row.get("call_equivalence") or {}).get("says") for row in rows],
        "images_per_second": fmean(speeds) if speeds else None,
    }


def _over(values: Sequence[float]) -> dict[str, float]:
    return {"value": fmean(values), "low": min(values), "high": max(values)}


def teacher_rows(results: Sequence[Result]) -> Sequence[Mapping[str, Any]]:
    """Return the teacher's measured rows, which all runs share."""
    return results[0].teacher if results else ()
