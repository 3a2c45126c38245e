"""The pictures of a report: samples and paths, with one noise for each column of samples."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.data.pictures import data_uri, grid, on_scale, own_scale, rows_grid, scale_in_words
from bootdiff.report.finished import Finished
from bootdiff.report.page import figure, note, picture, section
from bootdiff.report.privacy import without_place
from bootdiff.samplers.students import PathSampler
from bootdiff.sampling import gallery
from bootdiff.sampling.belonging import Opened
from bootdiff.sampling.gallery import TEACHER
from bootdiff.sampling.opening import itself, open_pair, run_conditions
from bootdiff.storage.runs import Run
from bootdiff.students import PathStudent, Student
from bootdiff.students.files import card_of, load_student
from bootdiff.system import notes
from bootdiff.teachers import Teacher

PATH_ROWS = 4
#: the largest width in pixels of an image that is enlarged without smoothing
TINY = 16
#: the largest width of a picture, in pixels
WIDEST = 1600
PATH_END = "The path's exact end, what BOOT learns (50 Heun steps)"
STUDENT = "Student, one call"
FIRST = "Student of the first stage ({stage}), one call"
LATER = "Student of the stage {stage}, one call"
SAME = "The same noises, column by column."
TOO_LARGE = "A teacher is too large to be sampled on this CPU."

Row = tuple[str, Tensor]


@dataclass(frozen=True)
class Asked:
    """A run's student and its teacher, with the noises and conditions that both are asked for.

    Args:
        teacher: the teacher with the student's guidance; None if it is not there, or too large to be sampled here.
        eps: the noises, (columns, *shape), on the best device.
        words: text on the conditions of the columns, empty if there are none.
        weight, negative: the guidance weight and the negative prompt; None without them.
    """

    student: Student
    teacher: Teacher | None
    eps: Tensor
    condition: Condition
    words: str
    weight: float | None
    negative: str | None

    def shown(self, samples: Tensor) -> Tensor:
        """Return samples as images, (columns, c, h, w) on the CPU."""
        return self.student.decode(samples).cpu()

    def teacher_row(self, teacher: Teacher, low: float, high: float) -> Tensor:
        """Return the teacher's own samples from time ``high`` to ``low``, as images (columns, c, h, w)."""
        return self.shown(gallery.teacher_samples(teacher, self.eps, self.condition, low, high))


def open_asked(run: Finished, named: str | Teacher | None = None, alone: bool = False) -> Asked | None:
    """Open a run's student beside its teacher; return None if its samples are no pictures.

    Args:
        named: the teacher or its name, if the run does not say it.
        alone: whether a missing teacher is left out, instead of an error.

    Raises:
        BootdiffError: if the student or a needed teacher cannot be opened.
    """
    student = gallery.open_shown(run.folder, itself(named))
    if student is None:
        return None
    card, pair = card_of(student), _pair(run, named, alone)
    conditions = pair.conditions if pair else run_conditions(str(run.folder), PathSampler(student), card)
    eps, condition = gallery.row_inputs(student.shape, conditions)
    words = _words(Run(run.folder).prompts, card.conditions.labels, len(eps))
    teacher = gallery.affordable(pair.teacher) if pair else None
    negative = card.conditions.negative_prompt
    return Asked(student.to(eps.device), teacher, eps, condition, words, _weight(student), negative)


def _pair(run: Finished, named: str | Teacher | None, alone: bool) -> Opened | None:
    try:
        return open_pair(str(run.folder), named)
    except BootdiffError as error:
        if not alone:
            raise
        notes.note(f"the report shows no images of the teacher of {run.name}: {error}")
        return None


def _words(prompts: Sequence[str] | None, labels: Sequence[int] | None, count: int) -> str:
    """Return text that says what the columns were asked for; empty if nothing was."""
    words: Sequence[Any] = prompts if prompts is not None else labels or ()
    said = "; ".join(str(words[i % len(words)]) for i in range(count)) if words else ""
    return f"{'Classes' if prompts is None else 'Columns'}: {said}." if said else ""


def _weight(student: Student) -> float | None:
    """Return the guidance weight of the columns: the one asked for, or the only one that was learned."""
    told = student.told_weight(None)
    return student.learned.fixed if told is None else told


@torch.no_grad()
def samples_and_path(run: Finished, named: str | Teacher | None = None) -> str:
    """Return a run's teacher and student from the same noises, and the student's path, as HTML."""
    asked = open_asked(run, named)
    if asked is None:
        return ""
    student, low, high = asked.student, asked.student.t_min, asked.student.t_max
    rows: list[Row] = [(STUDENT, asked.shown(student.sample(asked.eps, asked.condition)))]
    before = [
        (stage, load_student(stage.folder, itself(named)).to(asked.eps.device).sample(asked.eps, asked.condition))
        for stage in run.earlier
    ]
    titles = [(LATER if number else FIRST).format(stage=_title(stage)) for number, (stage, _) in enumerate(before)]
    rows = [*((title, asked.shown(made)) for title, (_, made) in zip(titles, before, strict=True)), *rows]
    if asked.teacher is not None:  # 150 calls of the teacher
        end = gallery.path_end(asked.teacher, asked.eps, asked.condition, low, high)
        rows = [(TEACHER, asked.teacher_row(asked.teacher, low, high)), (PATH_END, asked.shown(end)), *rows]
    guided = "" if asked.weight is None else f"Guidance weight {asked.weight:g}."
    words = " ".join([SAME, *([TOO_LARGE] if asked.teacher is None else []), asked.words, guided])
    together = section("Teacher and student", _rows(rows, words, own=student.adapter is None))
    path = _path(asked, student) if isinstance(student, PathStudent) else ""
    return together + (section("The path of the student", path) if path else "")


def _title(stage: Finished) -> str:
    """Return what a row calls an earlier stage: its method, and its own name where that is another."""
    method = stage.config["method"]
    return f"{method}" if stage.name == method else f"{method} {stage.name}"


def _path(asked: Asked, student: PathStudent) -> str:
    few = asked.eps[:PATH_ROWS], asked.condition.index(slice(PATH_ROWS))
    steps = gallery.path_images(student, *few)
    scale = own_scale([steps]) if student.adapter is None else None
    steps, labels = on_scale(steps, scale), ", ".join(f"{t:.2f}" for t in gallery.path_times(student))
    caption = f"y_t of one noise a row, for t = {labels}. {scale_in_words(scale)}".strip()
    return figure(_shown(rows_grid(list(steps)), caption, steps), caption)


@torch.no_grad()
def samples_together(runs: Sequence[Finished]) -> str:
    """Return the runs' students from the same noises, one below the other, as HTML.

    Students of different teachers stand apart.
    """
    groups: dict[tuple[str, ...], Group] = {}
    lacking = []
    for run in runs:
        try:
            asked = open_asked(run, alone=True)
        except BootdiffError as error:  # a student that only Python can build, a base stage that has moved
            lacking.append(f"No samples of {run.name}: {error}")
            continue
        if asked is not None:
            key = (run.teacher_key, str(tuple(asked.student.shape)), asked.words)
            groups.setdefault(key, Group(without_place(run.config["teacher"]), asked.words)).add(run.name, asked)
    figures = [_rows(group.rows, f"{SAME} {group.words}", group.title) for group in groups.values()]
    return section("Samples", *figures, *map(note, lacking))


@dataclass
class Group:
    """The rows of runs that have the same teacher and the same conditions; their guidance may differ."""

    title: str
    words: str
    rows: list[Row] = field(default_factory=list)
    guided: list[tuple[float | None, str | None]] = field(default_factory=list)

    def add(self, name: str, asked: Asked) -> None:
        """Add a student's row, below its teacher's if that has not been added yet."""
        guidance = asked.weight, asked.negative
        if asked.teacher is not None and guidance not in self.guided:
            self.guided.append(guidance)
            weight = "" if asked.weight is None else f", guidance weight {asked.weight:g}"
            self.rows.append((TEACHER + weight, asked.teacher_row(asked.teacher, *asked.teacher.t_range)))
        self.rows.append((name, asked.shown(asked.student.sample(asked.eps, asked.condition))))


def _rows(rows: Sequence[Row], caption: str, title: str = "", own: bool = False) -> str:
    """Return rows of samples as HTML, each under its name.

    Args:
        own: whether they are on one scale of their own if values lie outside [−1, 1], as a plain module's may.
    """
    scale = own_scale([images for _, images in rows]) if own else None
    tiles = [(name, images, grid(on_scale(images, scale), len(images))) for name, images in rows]
    body = "".join(
        f'<p class="label">{html.escape(name)}</p>{_shown(tile, f"Samples: {name}", images)}'
        for name, images, tile in tiles
    )
    return figure(body, f"{caption.strip()} {scale_in_words(scale)}".strip(), title)


def _shown(pixels: Image.Image, alt: str, images: Tensor) -> str:
    """Return a picture as HTML, no wider than a page needs; tiny images keep their pixels' edges."""
    pixels.thumbnail((WIDEST, pixels.height))
    return picture(data_uri(pixels), alt, "samples enlarged" if images.shape[-1] <= TINY else "samples")
