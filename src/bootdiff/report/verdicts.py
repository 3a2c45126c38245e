"""What a reader of a report wants to know first: whether the run has converged, and how good the student is."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from bootdiff.report.finished import Finished
from bootdiff.report.tables import figure_in, spaces_of, student_row

FRECHET = "frechet_distance"
#: for each verdict's word a sign, which needs no colour, and a colour
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
    """Return the result of a run in one sentence or two."""
    if not evaluation:
        return "Not measured yet: run bootdiff evaluate on this folder, then bootdiff report."
    student = student_row(evaluation)
    if student is None or student["frechet_distance"] is None:
        return "Path error is in the table; a Fréchet distance needs a feature space and a reference."
    return f"{student['call_equivalence']['sentence']} Its Fréchet distance is {student['frechet_distance']:.3g}."


def verdict_box(run: Finished, name: str = "") -> str:
    """Return a box with the verdict on a run, if there is one, and its headline, as HTML.

    It stands under a name if one is given.
    """
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
    """Return sentences that say which run is nearest to the reference.

    There is one for each feature space in which several runs were measured.
    """
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
