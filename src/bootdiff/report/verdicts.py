"""What a reader wants first: has it converged, and how good is it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from bootdiff.report.finished import Finished
from bootdiff.report.tables import figure_in, is_teacher, spaces_of, student_row

FRECHET = "frechet_distance"
#: in the names of rows that start where the student's path does
FROM = " from t = "
#: how a verdict's word is set: a sign that needs no colour, and a colour
LOOKS = {
    "converged": ("✓", "good"),
    "still falling": ("↘", ""),
    "unknown": ("?", ""),
    "drifting": ("✗", "bad"),
    "brightness drift": ("✗", "bad"),
    "saturation drift": ("✗", "bad"),
    "growing variance": ("✗", "bad"),
    "collapsing": ("✗", "bad"),
    "unstable": ("✗", "bad"),
}


def headline(evaluation: Mapping[str, Any] | None) -> str:
    """The run in one sentence."""
    if not evaluation:
        return "Not measured yet: run bootdiff evaluate on this folder, then bootdiff report."
    rows = evaluation["rows"]
    student = student_row(evaluation)
    if student is None or student["frechet_distance"] is None:
        return "Path error is in the table; a Fréchet distance needs a feature space and a reference."
    figure = student["frechet_distance"]
    own = [r for r in rows if is_teacher(r) and r["frechet_distance"] is not None and FROM not in r["name"]]
    worse = [r for r in own if r["frechet_distance"] >= figure]
    best = max(worse, key=lambda r: r["calls"], default=None)
    beside = f", as good as the teacher's {_named(best)}" if best else ""
    nearer = [r for r in own if r["frechet_distance"] < figure]
    better = min(nearer, key=lambda r: r["frechet_distance"], default=None)
    times = "" if better is None else f" is {figure / better['frechet_distance']:.3g} times nearer"
    ahead = f"; the teacher's {_named(better)}{times}" if better else ""
    return f"One call reaches a Fréchet distance of {figure:.3g}{beside}{ahead}."


def _named(figures: Mapping[str, Any]) -> str:
    return f"{figures['name']} ({figures['frechet_distance']:.3g})"


def verdict_box(run: Finished, name: str = "") -> str:
    """The verdict on a run's convergence, where it was watched, and its headline; under a name if there is one."""
    head = f"<h2>{html.escape(name)}</h2>" if name else ""
    verdict, kind, told = run.verdict, "", ""
    if verdict is not None:
        sign, kind = LOOKS[verdict.word]
        word = f"{sign} {verdict.word.capitalize()}"
        told = f'<p class="word">{word}</p><p>{html.escape(_sentence(verdict.sentence))}</p>'
    kinds = f"verdict {kind}".strip()
    return f'<div class="{kinds}">{head}{told}<p>{html.escape(headline(run.evaluation))}</p></div>'


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]


def leaders(runs: Sequence[Finished]) -> list[str]:
    """For each feature space that several runs were measured in, which one is nearest to the reference."""
    said = []
    for space, here in spaces_of(runs).items():
        figures = {run.name: f.value for run in here.runs if (f := figure_in(student_row(run.evaluation), FRECHET))}
        if FRECHET in here.names and len(figures) > 1:
            sizes = {run.evaluation["num"] for run in here.runs if run.evaluation and run.name in figures}
            said.append(f"{_leader(figures, sizes)} ({space.words})")
    return said


def _leader(figures: Mapping[str, float], sizes: set[int]) -> str:
    if len(sizes) > 1:
        *first, last = (f"{size:,}" for size in sorted(sizes))
        return f"Measured with {', '.join(first)} and {last} samples, so their distances do not compare"
    name = min(figures, key=lambda key: figures[key])
    return f"{name} is nearest to the reference, with a Fréchet distance of {figures[name]:.3g}"
