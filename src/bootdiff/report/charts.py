"""Small charts as SVG images, which fit a phone's width, print sharply, and follow a light or dark page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Point = tuple[float, float]

#: width and height in inches; at 72 points an inch the text is as large on a phone as the page's small print
SIZE = (3.5, 2.3)
#: a colour that stands for the ink until the image is written
INK = "#010203"
#: the colours of lines; each has a contrast of 3 : 1 at least, on the white and on the dark page
COLOURS = ("#2f80d8", "#d9660f", "#26956a", "#a05fd0", "#d0497c", "#8a7a1f", "#6f7b87")
DASHES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
LIGHT, DARK = "#1b1f24", "#e8ebee"
STYLE = f"<style>svg{{color:{LIGHT}}}@media (prefers-color-scheme:dark){{svg{{color:{DARK}}}}}</style>"
#: the largest number of characters of a name in a legend
LONGEST = 24


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Args:
        label: the line's name.
        points: the points (x, y); those that are not finite are left out.
        place: a number that says which colour and which dashes the line has.
    """

    label: str
    points: Sequence[Point]
    place: int = 0


@dataclass(frozen=True)
class Chart:
    """A chart, before it is drawn.

    Args:
        title, note: the text above and the text below it.
        log: whether the y axis is logarithmic; then only values above 0 are drawn.
        across: the name of the x axis.
        level: a value at which a horizontal line is drawn.
    """

    title: str
    note: str
    series: Sequence[Series]
    log: bool = False
    across: str = "step"
    level: float | None = None

    @property
    def drawn(self) -> list[Series]:
        """Return the series that have points to draw, with these points only."""
        lowest = 0 if self.log else -math.inf
        kept = [
            Series(s.label, [p for p in s.points if math.isfinite(p[1]) and p[1] > lowest], s.place)
            for s in self.series
        ]
        return [s for s in kept if s.points]

    @property
    def words(self) -> str:
        """Return the chart in words, for readers who do not see it."""
        ends = [
            f"{s.label}: {s.points[0][1]:.3g} at {self.across} {s.points[0][0]:.3g}, "
            f"{s.points[-1][1]:.3g} at {s.points[-1][0]:.3g}"
            for s in self.drawn
        ]
        return f"{self.title} by {self.across}. {'; '.join(ends)}."


def draw(chart: Chart) -> str:
    """Return a chart as the text of an SVG image."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_RC):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        for line in chart.drawn:
            _plot(axes, line)
        if chart.level is not None:
            axes.axhline(chart.level, color=INK, linewidth=0.8, alpha=0.6)
        _scale(axes, chart)
        if len(chart.drawn) > 1:
            wide = any(len(line.label) > LONGEST // 2 for line in chart.drawn)
            figure.legend(loc="outside upper left", ncols=1 if wide else 3, frameon=False)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    drawn = buffer.getvalue()
    inner = drawn[drawn.index("<svg") :].replace(INK, "currentColor")
    return inner.replace("<defs>", f"{STYLE}<defs>", 1)


def chart_uri(chart: Chart) -> str:
    """Return a chart as a ``data:`` address."""
    return "data:image/svg+xml;base64," + base64.b64encode(draw(chart).encode()).decode()


#: matplotlib's settings; Any, because mypy would have every key spelt out
_RC: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bootdiff",
    "font.family": "sans-serif",
    "font.size": 9,
    "legend.fontsize": 9,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "legend.handlelength": 2.4,
    "legend.borderaxespad": 0.0,
}


def _plot(axes: Any, line: Series) -> None:
    colour, dashes = COLOURS[line.place % len(COLOURS)], DASHES[line.place % len(DASHES)]
    label = line.label if len(line.label) <= LONGEST else f"…{line.label[-LONGEST:]}"
    marker = "o" if len(line.points) == 1 else None
    axes.plot(
        *zip(*line.points, strict=True), color=colour, label=label, linewidth=1.6, linestyle=dashes, marker=marker
    )


def _scale(axes: Any, chart: Chart) -> None:
    """Set axes whose ticks are plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    values = [y for line in chart.drawn for _, y in line.points]
    axes.set_xlabel(chart.across)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}" if abs(x) >= 1000 else f"{x:g}"))
    if chart.log and values:
        axes.set_yscale("log")
        decades = math.log10(max(values) / min(values))
        subs = (1.0,) if decades > 2 else (1.0, 2.0, 5.0)
        axes.yaxis.set_major_locator(LogLocator(subs=subs) if decades > 0.7 else MaxNLocator(4))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.6g}"))
