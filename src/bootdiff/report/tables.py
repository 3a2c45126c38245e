"""The tables of figures in a report; figures of different feature spaces never share a column."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bootdiff.evaluation.figures import IN_A_SPACE
from bootdiff.report.finished import Finished
from bootdiff.report.page import cell, head_row, note, notes, row, section, table
from bootdiff.samplers import rows

#: the figures that are measured by a model of their own, which their estimator names
OWN_MODEL = ("clip_score",)
#: the figures that need no feature space, with their headings
PLAIN = {"path_error": "path error", "images_per_second": "images/s"}
SHARES = ("faithfulness",)
DASH = "–"
RANGED = "Below a figure stands its interval, of 95 % where nothing else is said."


@dataclass(frozen=True)
class Figure:
    """A figure of a row; ``low`` and ``high`` are None if its spread is not known."""

    value: float
    low: float | None = None
    high: float | None = None
    num: int | None = None
    estimator: str | None = None


@dataclass(frozen=True)
class Space:
    """The feature space and reference that a figure was measured with.

    Args:
        name: the name of the feature space.
        reference: the reference, if there is one.
    """

    name: str
    reference: str | None = None

    @property
    def words(self) -> str:
        """Return the space in words, without the folder in which the reference lies."""
        return self.name + (f" against {Path(self.reference).name}" if self.reference else "")


@dataclass
class Columns:
    """The columns of a table that belong to one space.

    Args:
        runs: the runs that were measured in the space.
        names: the figures of the space, with their headings.
    """

    runs: list[Finished] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    @property
    def students(self) -> list[Mapping[str, Any]]:
        """Return the rows of the runs' students."""
        return [student_row(run.evaluation) or {} for run in self.runs]


def student_row(evaluation: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the student's row of an evaluation; None if there is none."""
    return rows.student_row(evaluation["rows"]) if evaluation else None


def figure_in(figures: Mapping[str, Any] | None, name: str) -> Figure | None:
    """Return a figure of a row by its name; None if the row lacks it."""
    if figures is None:
        return None
    told = figures.get("figures", {}).get(name)
    if told is not None and told["value"] is not None:
        return Figure(told["value"], told.get("low"), told.get("high"), told.get("num"), told.get("estimator"))
    plain = figures.get(name)
    return None if plain is None else Figure(plain)


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the figures of a feature space that any of these rows has, with their headings."""
    others = [name for r in rows for name in r.get("figures", {}) if name not in IN_A_SPACE and name not in PLAIN]
    known = {
        **{name: words for name, (words, _) in IN_A_SPACE.items()},
        **{name: name.replace("_", " ") for name in others},
    }
    return {name: words for name, words in known.items() if any(figure_in(r, name) for r in rows)}


def figures_table(evaluation: Mapping[str, Any] | None) -> str:
    """Return a section with a run's rows, of its teacher's samplers and its student, as HTML."""
    if not evaluation:
        return ""
    measured = evaluation["rows"]
    names = columns(measured)
    plain = {name: words for name, words in PLAIN.items() if any(figure_in(r, name) for r in measured)}
    head = head_row(["sampler", "calls", *names.values(), *plain.values()])
    body = [
        row(
            r["name"],
            [cell(str(r["calls"])), *_cells(r, [*names, *plain])],
            "student" if rows.is_student(r) else "",
        )
        for r in measured
    ]
    features = evaluation["features"]
    space = Space(f"features {features}", evaluation.get("reference")).words if features else "no feature space"
    how = (
        f"{evaluation['num']:,} samples a noise seed, {evaluation['repeats']} noise seed(s), {space}. "
        "A call is one evaluation of the network for one image. The teacher's best sampler and spacing within a number "
        "of calls was chosen on other noises. The path error is the mean squared difference to the path's exact end "
        "for the same noise."
    )
    return section("Figures", table([head], body, "Figures"), note(how), notes(footnotes(measured, names)))


def footnotes(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> list[str]:
    """Return lines that say how each figure was estimated, and from how many samples."""
    said = []
    for name, words in names.items():
        found = [f for r in rows if (f := figure_in(r, name)) is not None]
        ways = dict.fromkeys(way for f in found if (way := _way(f)))
        said += [f"{words[:1].upper()}{words[1:]}: {'; or '.join(ways)}."] if ways else []
    ranged = any(f.low is not None for r in rows for name in names if (f := figure_in(r, name)))
    return [*said, *([RANGED] if ranged else [])]


def _way(figure: Figure) -> str:
    samples = f"{figure.num:,} samples" if figure.num else ""
    return ", ".join(words for words in (samples, figure.estimator) if words)


def space_of(evaluation: Mapping[str, Any], name: str, figures: Mapping[str, Any]) -> Space:
    """Return the space that a figure of an evaluation belongs to."""
    told = figure_in(figures, name)
    if name in OWN_MODEL and told is not None:
        return Space((told.estimator or "a model that was not named").split(";")[0])
    return Space(f"features {evaluation['features']}", evaluation.get("reference"))


def spaces_of(runs: Sequence[Finished]) -> dict[Space, Columns]:
    """Return the spaces that the runs' students were measured in, with their columns."""
    spaces: dict[Space, Columns] = {}
    for run in runs:
        student = student_row(run.evaluation)
        for name, words in columns([student]).items() if student else ():
            here = spaces.setdefault(space_of(run.evaluation or {}, name, student or {}), Columns())
            here.names[name] = words
            here.runs += [run] if run not in here.runs else []
    return spaces


def students_table(runs: Sequence[Finished]) -> str:
    """Return a section with a row for each run's student, as HTML; every feature space has its own columns."""
    students = [student for run in runs if (student := student_row(run.evaluation)) is not None]
    if not students:
        return ""
    spaces = spaces_of(runs)
    plain = {name: words for name, words in PLAIN.items() if any(figure_in(s, name) for s in students)}
    body = []
    for run in runs:
        student = student_row(run.evaluation)
        cells = [
            part for space in spaces.values() for part in _cells(student if run in space.runs else None, space.names)
        ]
        body.append(row(run.name, [*cells, *_cells(student, plain)]))
    names = [words for space in spaces.values() for words in space.names.values()]
    heads = [_spaces_row(spaces, len(plain)), head_row(["student of", *names, *plain.values()])]
    return section("Figures", table(heads, body, "Figures of the students"), *_notes(runs, spaces))


def _spaces_row(spaces: Mapping[Space, Columns], others: int) -> str:
    """Return the header row that names the feature spaces, as HTML."""
    groups = [
        f'<th scope="colgroup" colspan="{len(here.names)}">{html.escape(space.words)}</th>'
        for space, here in spaces.items()
    ]
    return f'<tr><td></td>{"".join(groups)}<td colspan="{others}"></td></tr>' if groups else ""


def _notes(runs: Sequence[Finished], spaces: Mapping[Space, Columns]) -> list[str]:
    sizes = [f"{run.name}: {run.evaluation['num']:,} × {run.evaluation['repeats']}" for run in runs if run.evaluation]
    estimated = dict.fromkeys(words for here in spaces.values() for words in footnotes(here.students, here.names))
    words = (
        f"Samples × noise seeds: {'; '.join(sizes)}. A path error compares runs of one teacher and one range of times; "
        "images/s is each machine's own."
    )
    return [note(words), notes(list(estimated))]


def _cells(figures: Mapping[str, Any] | None, names: Iterable[str]) -> list[str]:
    return [_cell(figure_in(figures, name), name in SHARES) for name in names]


def _cell(figure: Figure | None, share: bool) -> str:
    if figure is None:
        return cell(DASH)
    spread = [number(value, share, 3) for value in (figure.low, figure.high) if value is not None]
    return cell(number(figure.value, share), " – ".join(spread))


def number(value: float, share: bool = False, digits: int = 4) -> str:
    """Return a figure as text, with ``digits`` significant digits; a ``share`` as a percentage."""
    if share:
        return f"{value:.1%}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"
