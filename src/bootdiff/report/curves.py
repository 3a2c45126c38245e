"""The charts that a report draws, of one run or of several in the same axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bootdiff.monitoring.convergence import excess_saturation, relative_diversity
from bootdiff.report.charts import Chart, Point, Series, chart_uri
from bootdiff.report.finished import Finished
from bootdiff.report.page import figure, note, picture, section

Line = Mapping[str, Any]
Points = Callable[[Finished], list[Point]]

LOSSES = {
    "loss": "loss",
    "bootstrap": "bootstrap loss",
    "boundary": "boundary loss",
    "prediction": "prediction loss",
    "correction": "teacher − fake, squared",
    "fake": "fake denoiser's loss",
}
#: the figures of a look that are drawn as they are, on a logarithmic axis, with title and note
FALLING = {
    "path_error": ("Path error", "Mean squared difference to the end of the teacher's path from the same noise."),
    "boundary_error": ("Boundary error", "The same at the path's start."),
    "consistency_error": ("Consistency error", "The same of the answers half way along the teacher's path."),
    "straightness": ("Straightness", "How far the answers along the student's own path are from its end, squared."),
    "frechet_distance": (
        "Distance to the teacher's samples",
        "Fréchet distance in the leading directions of what the teacher's network sees in them (of their values, where "
        "it has no block in the middle).",
    ),
}
RESIDUAL = "Root mean square of the residual ‖r‖ of a pixel, by time."
LOOKED = (
    "Looks on the way, from the same noises each time, beside the ends of the teacher's own path: "
    "no image of a data set is needed."
)


def convergence(runs: Sequence[Finished], title: str = "Convergence") -> str:
    """Return a section on what the looks at the runs saw, as HTML; empty if no run was watched."""
    watched = any(run.looks for run in runs)
    charts = _convergence_charts(runs) if watched else []
    unwatched = [run.name for run in runs if not run.looks]
    left_out = f" Not watched: {', '.join(unwatched)}." if unwatched else ""
    return section(title, note(LOOKED + left_out), _figures(charts)) if charts else ""


def losses(run: Finished, title: str = "Losses") -> str:
    """Return a section on a run's training log, as HTML.

    It shows losses by step, and the residual at the start, the middle and the end.
    """
    if len(run.log) < 2:
        return ""
    # With a fake denoiser the sum of all turns' losses says nothing.
    parts = {key: words for key, words in LOSSES.items() if key != "loss" or "fake" not in run.log[-1]}
    curves = [Series(words, _logged(key)(run), place) for place, (key, words) in enumerate(parts.items())]
    told = dict.fromkeys((0, len(run.log) // 2, len(run.log) - 1))
    bins = [
        Series(f"step {run.log[number]['step']:,}", _by_time(run.log[number]), place)
        for place, number in enumerate(told)
    ]
    charts = [Chart("Losses", "Means between two lines of the log.", curves, log=True)]
    return section(title, _figures([*charts, Chart("Residual", RESIDUAL, bins, across="t")]))


def losses_together(runs: Sequence[Finished]) -> str:
    """Return a section on several runs' losses, one chart for each term, and their residuals at the end."""
    charts = [Chart(words.capitalize(), "", _of(runs, _logged(key)), log=True) for key, words in LOSSES.items()]
    last = _of(runs, lambda run: _by_time(run.log[-1]) if run.log else [])
    return section("Losses", _figures([*charts, Chart("Residual at the end", RESIDUAL, last, across="t")]))


def _convergence_charts(runs: Sequence[Finished]) -> list[Chart]:
    falling = [Chart(title, words, _of(runs, _seen_as(key)), log=True) for key, (title, words) in FALLING.items()]
    return [
        *falling,
        Chart("Diversity", _DIVERSITY, _of(runs, _seen(relative_diversity)), level=1.0),
        _saturation(runs),
        Chart("Channel drift", _DRIFT, _of(runs, _seen(_drift)), level=0.0),
    ]


_DIVERSITY = "How much different seeds differ, as a share of the teacher's: at 1 as much."
_SATURATION = "Share of saturated values, of the channel with most."
_DRIFT = "How far a channel's mean is from the teacher's, in the teacher's deviations; the farthest channel's."


def _saturation(runs: Sequence[Finished]) -> Chart:
    """Return a chart of saturated values.

    One student is drawn beside its teacher; of several students, how much they are above their teachers.
    """
    if len(runs) > 1:
        words = "Saturated values above the teacher's share, of the channel with most."
        return Chart("Saturation", words, _of(runs, _seen(excess_saturation)), level=0.0)
    student, teacher = _seen(lambda look: max(look["saturation"])), _seen(lambda look: max(look["teacher_saturation"]))
    lines = [Series("student", student(runs[0])), Series("teacher", teacher(runs[0]), 1)]
    return Chart("Saturation", _SATURATION, lines)


def _drift(look: Line) -> float:
    channels = zip(look["mean"], look["teacher_mean"], look["teacher_deviation"], strict=True)
    return max(((mean - teacher) / max(deviation, 1e-12) for mean, teacher, deviation in channels), key=abs)


def _of(runs: Sequence[Finished], points: Points) -> list[Series]:
    return [Series(run.name, points(run), place) for place, run in enumerate(runs)]


def _seen(value: Callable[[Line], float]) -> Points:
    return lambda run: [(look["step"], value(look)) for look in run.looks]


def _seen_as(key: str) -> Points:
    """Return the points of a figure that looks at some kinds of students only have."""
    return lambda run: [(look["step"], look[key]) for look in run.looks if key in look]


def _logged(key: str) -> Points:
    return lambda run: [(line["step"], line[key]) for line in run.log if line.get(key) is not None]


def _by_time(line: Line) -> list[Point]:
    """Return the residuals of a line of the log, at the middles of their time bins."""
    bins = line.get("residual_by_time") or []
    return [((i + 0.5) / len(bins), value) for i, value in enumerate(bins) if value is not None]


def _figures(charts: Sequence[Chart]) -> str:
    drawn = [figure(picture(chart_uri(chart), chart.words), chart.note, chart.title) for chart in charts if chart.drawn]
    return f'<div class="charts">{"".join(drawn)}</div>' if drawn else ""
