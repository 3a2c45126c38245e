"""The files of a comparison: JSON, CSV, Markdown, a plot of quality against calls, and a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from bootdiff.data.pictures import is_picture, to_pixels
from bootdiff.evaluation.equivalence import sentences
from bootdiff.evaluation.figures import headings
from bootdiff.samplers.rows import sampler_name
from bootdiff.storage.files import write_json, write_text, write_whole

#: inches that a letter of a row's name takes in the picture of samples, at most
LETTER = 0.075
#: the number of students from which their marks in a chart are small
MANY = 8


def write_comparison(folder: Path, result: Mapping[str, Any], pictures: Mapping[str, Tensor]) -> None:
    """Write ``compare.json``, ``compare.csv``, ``compare.md``, ``quality.png`` and ``samples.png``."""
    write_json(folder / "compare.json", result)
    write_text(folder / "compare.csv", comma_separated(result))
    write_text(folder / "compare.md", document(result))
    if any(row["frechet_distance"] is not None for row in result["rows"]):
        write_whole(folder / "quality.png", lambda path: quality_chart(result["rows"]).savefig(path, dpi=130))
    if is_picture(next(iter(pictures.values())).shape[1:]):
        write_whole(folder / "samples.png", lambda path: samples_chart(pictures).savefig(path, dpi=110))


def table_cells(result: Mapping[str, Any], intervals: bool = True) -> tuple[list[str], list[list[str]]]:
    """Return the head and the cells of the table; figures that no row has are left out.

    Args:
        intervals: whether each figure's interval stands beside it; a terminal has no room for them.
    """
    rows, known = result["rows"], headings()
    names = [name for name in known if any(name in row["figures"] for row in rows)]
    latencies = any("milliseconds" in row for row in rows)
    head = ["sampler", "calls", *(known[name][0] for name in names), "images/s", *(["ms, batch 1"] * latencies)]
    cells = []
    for row in rows:
        figures = [_cell(row["figures"].get(name), known[name][1], intervals) for name in names]
        speed = [f"{row['images_per_second']:.3g}", *([f"{row['milliseconds']['value']:.3g}"] if latencies else [])]
        cells.append([row["name"], str(row["calls"]), *figures, *speed])
    return head, cells


def _cell(figure: Mapping[str, Any] | None, form: str, intervals: bool) -> str:
    if figure is None:
        return "–"
    value, low, high = (figure[key] for key in ("value", "low", "high"))
    if low is None or form == ".1%" or not intervals:
        return format(value, form)
    if abs((high - value) - (value - low)) > 0.1 * (high - low):  # a share's interval ends at 0 and 1
        return f"{value:{form}} ({low:{form}} – {high:{form}})"
    return f"{value:{form}} ± {(high - low) / 2:.2g}"


def document(result: Mapping[str, Any]) -> str:
    """Return the text of the Markdown file: the table, and what its figures are."""
    head, cells = table_cells(result)
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *cells)]
    used = {name: figure for row in result["rows"] for name, figure in row["figures"].items()}
    known = headings()
    notes = [f"- {known[name][0]}: {figure['estimator']}." for name, figure in used.items() if name in known]
    about = (
        f"{result['num']} samples a noise seed, {result['repeats']} noise seed(s) from {result['seed']}, the same "
        f"noises for all; features {result['features'] or 'none'}, reference {result['reference'] or 'none'}. The "
        "teacher's best sampler and spacing within a number of calls is chosen on other noises. A call is one "
        "evaluation of the network for one image. Path error: mean squared difference to the end of "
        "the teacher's path (a student's own range), 50 Heun steps, for the first noises of a seed, 128 at most."
    )
    about += "".join(f" **{note[0].upper()}{note[1:]}**" for note in result.get("notes", []))
    title = f"# Students of {result['teacher']} and their teacher's samplers"
    worth = [f"**{sentence}**" for sentence in sentences(result["rows"])]
    return "\n\n".join([title, *worth, "\n".join(lines), about, "\n".join(notes)]) + "\n"


def comma_separated(result: Mapping[str, Any]) -> str:
    """Return the text of the CSV file: every figure with its interval, unrounded."""
    names = [name for name in headings() if any(name in row["figures"] for row in result["rows"])]
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    ends = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    told = ["kind", "method", "stage", "steps", "spacing", "best_of"]
    writer.writerow(["sampler", *told, "calls", *ends, "images_per_second", "milliseconds"])
    for row in result["rows"]:
        known = [row["figures"].get(name, {}) for name in names]
        values = [figure.get(key) for figure in known for key in ("value", "low", "high")]
        speed = [row["images_per_second"], row["milliseconds"]["value"]]
        writer.writerow([row["name"], *(row[key] for key in told), row["calls"], *values, *speed])
    return buffer.getvalue()


def quality_chart(rows: Sequence[Mapping[str, Any]], told: bool = True) -> Any:
    """Return a chart of the Fréchet distance against calls.

    It shows the teacher's best, a line for every sampler, and a star for every student.

    Args:
        told: whether it is headed by what a call of the last student is worth.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    known = [row for row in rows if row["frechet_distance"] is not None]
    teacher = [row for row in known if row["kind"] == "teacher" and row["start"] is None]
    best = sorted((r["calls"], r["frechet_distance"]) for r in teacher if r["best_of"] is not None)
    if best:
        axes.plot(*zip(*best, strict=True), color="black", marker="o", linewidth=2, label="teacher's best", zorder=4)
    for name in dict.fromkeys(row["sampler"] for row in teacher):
        same = sorted((r["calls"], r["frechet_distance"]) for r in teacher if r["sampler"] == name)
        axes.plot(*zip(*same, strict=True), marker="o", markersize=4, linewidth=0.8, label=sampler_name(name))
    titles = list(dict.fromkeys(row["title"] for row in known if row["kind"] == "student"))
    others = len({row["sampler"] for row in teacher})
    for number, title in enumerate(titles):
        # The student's star, and its teacher's calls after it on a dashed line.
        points = [(r["calls"], r["frechet_distance"]) for r in known if r["kind"] == "student" and r["title"] == title]
        # Ten colours, so that from the eleventh student on another shape tells them apart.
        color, marker = f"C{(others + number) % 10}", "*PXD"[number // 10 % 4]
        size = 15 if len(titles) < MANY else 9
        axes.plot(
            *points[0], color=color, marker=marker, linestyle="", markersize=size, label=title or "student", zorder=5
        )
        axes.plot(*zip(*points, strict=True), "--", marker=".", linewidth=1, color=color, zorder=4)
    worth = sentences(rows) if told else []
    if worth:
        axes.set_title(worth[-1], fontsize=8, wrap=True)
    axes.set(xlabel="network calls an image", ylabel="Fréchet distance", xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):  # 2 and not 2 × 10⁰
        axis.set_major_formatter(LogFormatter())
        axis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.5)))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8, ncols=2)
    return figure


def samples_chart(pictures: Mapping[str, Tensor]) -> Any:
    """Return a picture with a row of samples for every sampler, beside its name.

    Each column starts from one noise.
    """
    from matplotlib.figure import Figure

    names = list(pictures)
    columns = min(len(images) for images in pictures.values())
    beside = 0.3 + LETTER * max(map(len, names))
    figure = Figure(figsize=(beside + 0.62 * columns, 0.66 * len(names)))
    grid = figure.subplots(len(names), columns, squeeze=False)
    for line, name in zip(grid, names, strict=True):
        for axes, image in zip(line, pictures[name], strict=False):
            pixels = to_pixels(image).permute(1, 2, 0).numpy()
            axes.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=255)
            axes.axis("off")
        line[0].text(-0.15, 0.5, name, transform=line[0].transAxes, ha="right", va="center", fontsize=9)
    figure.subplots_adjust(
        left=beside / (beside + 0.62 * columns), right=0.995, top=0.995, bottom=0.005, wspace=0.05, hspace=0.05
    )
    return figure
