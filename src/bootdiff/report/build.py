"""From a run folder to ``report.html``."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import torch

from bootdiff.errors import BootdiffError
from bootdiff.files import read_json, write_text
from bootdiff.pictures import data_uri, is_picture, rows_grid
from bootdiff.report.charts import loss_chart
from bootdiff.runs import Run
from bootdiff.training.log import read_log

if TYPE_CHECKING:
    from bootdiff.evaluation.opening import Opened

COLUMNS = 10
PATH_TIMES = 8
PATH_ROWS = 4
#: values of a sample up to which ten columns are shown; of larger ones there are few
SMALL = 2**12
FEW = 4
#: parameters of a teacher that is not sampled on a CPU for a picture
LARGE = 100_000_000
THREE_ROWS = (
    "The same noises, column by column. Top: teacher, 50 DDIM steps. Middle: the path's exact end (50 Heun steps), "
    "what the student learns. Bottom: student, one call."
)


def build_report(folder: Path, teacher: str | None = None) -> Path:
    """Write ``report.html`` into a finished run and return its path.

    Args:
        teacher: where the run does not say, or its teacher has moved.

    Raises:
        BootdiffError: if the folder holds no finished distillation.
    """
    run = Run(folder)
    if not run.started or run.config.get("task") != "distill":
        raise BootdiffError(f"{folder} holds no distillation run; expected the --output of 'bootdiff distill'.")
    if not (folder / "student-path").exists():
        raise BootdiffError(f"the run in {folder} is not finished; repeat its command to finish it, then report.")
    evaluation = read_json(folder / "evaluation.json") if (folder / "evaluation.json").exists() else None
    config = run.config
    try:
        parts = [_pictures(folder, teacher), _losses(folder), _table(evaluation), _settings(run, config)]
        first_line = headline(evaluation)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BootdiffError(
            f"{folder} holds a damaged file ({type(error).__name__}: {error}); repeat the commands that made it."
        ) from error
    page = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(f"One-step student of {config['teacher']}"),
        subtitle=html.escape(f"method {config['method']}, run {folder}"),
        headline=html.escape(first_line),
        body="\n".join(part for part in parts if part),
    )
    path = folder / "report.html"
    write_text(path, page)
    return path


def headline(evaluation: Mapping[str, Any] | None) -> str:
    """The run in one sentence."""
    if not evaluation:
        return "Not measured yet: run bootdiff evaluate on this folder, then bootdiff report."
    rows = evaluation["rows"]
    student = next((r for r in rows if r["spacing"] == "one call"), None)
    if student is None or student["frechet_distance"] is None:
        return "Path error is in the table; a Fréchet distance needs a feature space and a reference."
    figure = student["frechet_distance"]
    worse = [r for r in rows if r["spacing"] != "one call" and r["frechet_distance"] >= figure]
    best = max(worse, key=lambda r: r["calls"], default=None)
    beside = f", as good as the teacher's {best['name']} ({best['frechet_distance']:.3g})" if best else ""
    return f"One call reaches a Fréchet distance of {figure:.3g}{beside}."


@torch.no_grad()
def _pictures(folder: Path, named: str | None) -> str:
    """Teacher and student from the same noises, and the path."""
    from bootdiff.evaluation.opening import open_pair
    from bootdiff.evaluation.rows import reference_path
    from bootdiff.pipelines.samplers import best_device
    from bootdiff.pipelines.student_files import load_student
    from bootdiff.randomness import sample_noise
    from bootdiff.solvers import ddim, even_times, trailing_times

    student = load_student(folder / "student-path")
    if not is_picture(student.shape) and (student.adapter is None or not student.adapter.latent):
        return ""
    pair = open_pair(str(folder), named)
    device, columns = best_device(), COLUMNS if math.prod(student.shape) <= SMALL else FEW
    student, teacher = student.to(device), pair.teacher.to(device)
    low, high = student.t_min, student.t_max
    eps = sample_noise(0, 0, columns, student.shape).to(device)
    condition = pair.conditions.listed(0, 0, columns).to(device)
    rows = [student.sample(eps, condition)]
    large = sum(p.numel() for p in teacher.parameters()) > LARGE and device.type == "cpu"
    if not large:  # 150 calls of the teacher
        many = ddim(teacher, eps, trailing_times(50, low, high), condition)
        rows = [many, reference_path(teacher, low, high)(eps, condition), *rows]
    rows = [student.decode(row).cpu() for row in rows]
    what = "Student, one call. (Its teacher is too large to be sampled on this CPU.)" if large else THREE_ROWS
    samples = _figure(rows_grid(rows), f"{what} {_columns(folder, pair, columns)}".strip(), pixelated=True)
    times = even_times(PATH_TIMES - 1, low, high)
    few = eps[:PATH_ROWS], condition.index(slice(PATH_ROWS))
    path = torch.stack([student.decode(student.sample(*few, t=t)).cpu() for t in times], dim=1)
    labels = ", ".join(f"{t:.2f}" for t in times)
    walk = _figure(rows_grid(list(path)), f"y_t of one noise a row, for t = {labels}.", pixelated=True)
    return f"<h2>Teacher and student</h2>{samples}<h2>The path y<sub>t</sub></h2>{walk}"


def _columns(folder: Path, pair: Opened, count: int) -> str:
    """What the columns were asked for."""
    prompts, labels = Run(folder).prompts, pair.facts.get("conditions", {}).get("labels")
    weight = pair.sampler.told_weight(None)
    words: Sequence[Any] = prompts if prompts is not None else labels or ()
    said = "; ".join(str(words[i % len(words)]) for i in range(count)) if words else ""
    asked = f"Columns: {said}." if prompts is not None else f"Classes: {said}." if said else ""
    return asked + (f" Guidance weight {weight:g}." if weight is not None else "")


def _losses(folder: Path) -> str:
    log = read_log(folder / "log.jsonl")
    if len(log) < 2:
        return ""
    return "<h2>Losses</h2>" + _figure(loss_chart(log), "Training losses (left) and the residual ‖r‖ by time (right).")


def _table(evaluation: Mapping[str, Any] | None) -> str:
    if not evaluation:
        return ""
    asked = any(row.get("faithfulness") is not None for row in evaluation["rows"])
    names = ["sampler", "calls", "Fréchet distance", *(["faithful"] if asked else []), "path error", "images/s"]
    head = "<tr>" + "".join(f"<th>{name}</th>" for name in names) + "</tr>"
    body = "".join(_row(row, asked) for row in evaluation["rows"])
    note = (
        f"{evaluation['num']} samples a noise seed, {evaluation['repeats']} noise seed(s), features "
        f"{evaluation['features'] or 'none'}. Of two time spacings the better counts. The path error is the mean "
        "squared difference to the 50-step Heun solution for the same noise."
    )
    return (
        f'<h2>Figures</h2><div class="scroll"><table>{head}{body}</table></div><p class="soft">{html.escape(note)}</p>'
    )


def _row(row: Mapping[str, Any], asked: bool) -> str:
    kind = ' class="student"' if row["spacing"] == "one call" else ""
    distance = "–" if row["frechet_distance"] is None else f"{row['frechet_distance']:.3f}"
    share = [f"{row['faithfulness']:.1%}"] if asked else []
    speed = f"{row['images_per_second']:.0f}"
    cells = [
        row["name"],
        str(row["calls"]),
        distance,
        *share,
        "–" if row["path_error"] is None else f"{row['path_error']:.4f}",
        speed,
    ]
    return f"<tr{kind}>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"


def _settings(run: Run, config: Mapping[str, Any]) -> str:
    meta = run.meta
    rows: Sequence[tuple[str, Any]] = [*config["settings"].items(), *meta["versions"].items()]
    body = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(str(v))}</td></tr>" for k, v in rows)
    command = f"<p>Command: <code>{html.escape(meta['command'])}</code></p>"
    return f'<h2>Settings</h2>{command}<div class="scroll"><table>{body}</table></div>'


def _figure(picture: Any, caption: str, pixelated: bool = False) -> str:
    kind = ' class="samples"' if pixelated else ""
    alt = html.escape(caption)
    return f'<figure{kind}><img src="{data_uri(picture)}" alt="{alt}"><figcaption>{alt}</figcaption></figure>'
