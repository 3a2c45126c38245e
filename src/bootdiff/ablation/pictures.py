"""The pictures of an ablation, like the paper's Figs. 7 and 8: a row for each variant, from the same noises."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bootdiff.ablation.results import Outcome
from bootdiff.ablation.variants import Axis, Design
from bootdiff.data.pictures import grid
from bootdiff.monitoring.convergence import read_watch
from bootdiff.samplers.students import PathSampler
from bootdiff.sampling import gallery
from bootdiff.sampling.opening import open_pair, run_conditions
from bootdiff.storage.files import write_whole
from bootdiff.students import PathStudent
from bootdiff.students.files import card_of
from bootdiff.teachers import Teacher

if TYPE_CHECKING:
    from PIL import Image

#: the largest width of a tile, in pixels; larger ones are reduced to it
TILE = 128


@dataclass(frozen=True)
class Looks:
    """The pictures that a variant's student makes: samples side by side, and y_t of one noise at its times.

    Only a path student has a path.
    """

    samples: Image.Image
    path: Image.Image | None = None
    times: Sequence[float] = ()


@dataclass
class Album:
    """The pictures in an ablation's folder, which are drawn anew whenever a variant is finished."""

    folder: Path
    design: Design
    _looks: dict[str, Looks | None] = field(default_factory=dict, init=False)
    _teacher: Image.Image | None = field(default=None, init=False)

    def draw(self, outcomes: Sequence[Outcome], changed: str | None = None) -> None:
        """Draw what the students of the finished runs make.

        Args:
            outcomes: the outcomes of all runs; each variant shows its first run that is finished.
            changed: the new variant, whose pictures alone are drawn; None draws all.
        """
        finished: dict[str, Outcome] = {}
        for outcome in outcomes:
            if outcome.state in ("trained", "measured"):
                finished.setdefault(outcome.job.variant.name, outcome)
        for name, outcome in finished.items():
            if name not in self._looks:
                self._looks[name] = look(outcome.job.folder)
        self._draw_variants(finished)
        for axis in self.design.axes:
            if changed is None or changed in (name for _, name in axis.members):
                self._draw_axis(axis)
        labels = {variant.name: variant.label for variant in self.design.variants}
        draw_curves({labels[name]: outcome.job.folder for name, outcome in finished.items()}, self.folder)

    def _draw_variants(self, finished: Mapping[str, Outcome]) -> None:
        shown = [(v.label, looks) for v in self.design.variants if (looks := self._looks.get(v.name)) is not None]
        if not shown:
            return
        samples = [(label, looks.samples) for label, looks in shown]
        self._write("samples", [*self._teacher_row(finished), *samples])
        paths = [(label, looks.path) for label, looks in shown if looks.path is not None]
        times = {tuple(looks.times) for _, looks in shown if looks.times}
        if paths:
            words = [f"t = {t:.2f}" for t in min(times)]
            heads = words if len(times) == 1 else ["t_max", *[""] * (len(words) - 2), "t_min"]
            self._write("path", paths, heads)

    def _draw_axis(self, axis: Axis) -> None:
        once = {name: label for label, name in reversed(axis.members)}
        rows = [
            (label, looks.samples)
            for label, name in axis.members
            if once[name] == label and (looks := self._looks.get(name)) is not None
        ]
        if len(rows) > 1:
            self._write(axis.key, rows)

    def _teacher_row(self, finished: Mapping[str, Outcome]) -> list[tuple[str, Image.Image]]:
        """Return the teacher's own samples as a row; nothing if the variants' teachers are guided differently."""
        if len({variant.guidance() for variant in self.design.variants}) > 1:
            return []
        if self._teacher is None:
            self._teacher = teacher_strip(next(iter(finished.values())).job.folder)
        return [] if self._teacher is None else [(f"teacher, DDIM {gallery.TEACHER_STEPS}", self._teacher)]

    def _write(self, name: str, rows: Sequence[tuple[str, Image.Image]], heads: Sequence[str] = ()) -> None:
        drawn = rows_figure(rows, heads)
        write_whole(self.folder / f"{name}.png", lambda path: drawn.savefig(path))


@torch.no_grad()
def look(run: Path, teacher: Teacher | None = None) -> Looks | None:
    """Return what a run's student makes of the noises of seed 0; None if its samples are no pictures.

    Args:
        teacher: that of a student of a plain module.
    """
    student = gallery.open_shown(run, teacher)
    if student is None:
        return None
    conditions = run_conditions(str(run), PathSampler(student), card_of(student))
    eps, condition = gallery.row_inputs(student.shape, conditions)
    student.to(eps.device)
    samples = strip(student.decode(student.sample(eps, condition)).cpu())
    if not isinstance(student, PathStudent):
        return Looks(samples)
    path = gallery.path_images(student, eps[:1], condition.index(slice(1)))[0]
    return Looks(samples, strip(path), gallery.path_times(student))


@torch.no_grad()
def teacher_strip(run: Path, teacher: Teacher | None = None) -> Image.Image | None:
    """Return the teacher's samples of the same noises; None if it is too large for this machine's CPU.

    Args:
        teacher: the teacher where the run cannot load it by its name.
    """
    pair = open_pair(str(run), teacher)
    shown = gallery.affordable(pair.teacher)
    if shown is None:
        return None
    inputs = gallery.row_inputs(shown.shape, pair.conditions)
    made = gallery.teacher_samples(shown, *inputs, *shown.t_range)
    adapter = pair.sampler.adapter
    return strip((made if adapter is None else adapter.decode(made)).cpu())


def strip(images: Tensor) -> Image.Image:
    """Return images (n, c, h, w) as one picture, side by side, none wider than ``TILE`` pixels."""
    picture = grid(images, columns=len(images))
    width = picture.width / len(images)
    factor = min(1.0, TILE / width)
    return picture.resize((round(picture.width * factor), round(picture.height * factor))) if factor < 1 else picture


def rows_figure(rows: Sequence[tuple[str, Image.Image]], heads: Sequence[str] = ()) -> Any:
    """Return a figure of strips of one size below each other, with labels at their left and heads above.

    A pixel of a strip is a pixel of the figure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    gap, above = 4, 20 if heads else 4
    width, height = rows[0][1].size
    figure = Figure(dpi=100)
    canvas = FigureCanvasAgg(figure)
    words = [figure.text(0, 0, label, fontsize=8, ha="right", va="center") for label, _ in rows]
    left = 12 + math.ceil(max(word.get_window_extent(canvas.get_renderer()).width for word in words))
    size = left + width + gap, above + len(rows) * (height + gap)
    figure.set_size_inches(size[0] / 100, size[1] / 100)
    for number, (word, (_, picture)) in enumerate(zip(words, rows, strict=True)):
        bottom = size[1] - above - (number + 1) * (height + gap) + gap
        figure.figimage(_pixels(picture), left, bottom)
        word.set_position(((left - 6) / size[0], (bottom + height / 2) / size[1]))
    for number, head in enumerate(heads):
        x = left + (number + 0.5) * width / len(heads)
        figure.text(x / size[0], 1 - above / 2 / size[1], head, fontsize=8, ha="center", va="center")
    return figure


def _pixels(picture: Image.Image) -> Any:
    import numpy as np

    return np.asarray(picture.convert("RGB"))


def draw_curves(runs: Mapping[str, Path], folder: Path) -> None:
    """Write ``curves.png``: path error and distance to the teacher's samples by step.

    Nothing is written if no run was watched.
    """
    looks = {label: seen for label, run in runs.items() if (seen := read_watch(run))}
    if looks:
        figure = curves_figure(looks)
        write_whole(folder / "curves.png", lambda path: figure.savefig(path))


def curves_figure(looks: Mapping[str, Sequence[Mapping[str, Any]]]) -> Any:
    """Return a figure of two charts, with a line for each run."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter, MaxNLocator

    figure = Figure(figsize=(11, max(3.6, 1.2 + 0.2 * len(looks))), dpi=110, layout="constrained")
    titles = {"path_error": "path error", "frechet_distance": "distance to the teacher's samples"}
    for axes, (key, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        for number, (label, seen) in enumerate(looks.items()):
            steps, values = zip(*((line["step"], line[key]) for line in seen), strict=True)
            style = ("solid", "dashed", "dotted")[number // 10 % 3]
            axes.plot(steps, values, label=label, color=colormaps["tab10"](number % 10), linestyle=style, linewidth=1.3)
        axes.set(title=title, xlabel="step", yscale="log")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
        axes.grid(alpha=0.3)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
    return figure
