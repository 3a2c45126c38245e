"""``bootdiff evaluate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bootdiff.cli.measurement import Measurement, notes
from bootdiff.cli.words import read_counts
from bootdiff.data.conditions import Cascade, Conditions
from bootdiff.errors import BootdiffError
from bootdiff.evaluation.cascades import Remembered, cascade_candidates
from bootdiff.evaluation.evaluate import evaluate
from bootdiff.evaluation.measure import Listed
from bootdiff.evaluation.opening import Opened, base_teacher, open_pair
from bootdiff.evaluation.processes import join
from bootdiff.evaluation.rows import DDIM_STEPS, FIRST_STAGE, Candidate, heun_candidate
from bootdiff.files import read_json, write_json, write_text
from bootdiff.lock import lock
from bootdiff.pipelines.card import model_card
from bootdiff.pipelines.samplers import open_student
from bootdiff.pipelines.student_files import FILE
from bootdiff.progress import is_first_process
from bootdiff.runs import STAGE, Run, environment
from bootdiff.teachers.adapters import adapter_for
from bootdiff.teachers.parts import Parts

#: seconds that another process, which puts its figures into the same run, is waited for
PATIENCE = 10.0


def run_evaluate(
    student: str,
    asked: Measurement,
    output: Path,
    teacher: str | None = None,
    teacher_options: Mapping[str, str] | None = None,
    ddim_steps: str | None = None,
    heun: bool = True,
    quiet: bool = False,
    own_heun: bool = False,
) -> dict[str, Any]:
    """Measure, print a table, write JSON; a run also keeps it for its report and model card.

    Args:
        teacher_options: revision, variant and dtype, over those that the student's own teacher was loaded with.
        own_heun: the teacher's 50 Heun steps as one more row, where ``heun`` is left out; of a cascade both teachers'.
    """
    if output.suffix != ".json":
        raise BootdiffError(f"--output {output}: expected a file that ends in .json.")
    join()
    steps = read_steps(ddim_steps)
    pair = open_pair(student, teacher, teacher_options, asked.choice)
    judges, reference = asked.judges(pair.teacher, pair.texts)
    conditions, more = _with_base(student, pair, steps, heun or own_heun)
    if own_heun and not heun:
        more = [*more, heun_candidate(pair.teacher, pair.teacher.t_range)]
    if (Path(student) / STAGE / "student-path").is_dir():
        more = [*more, Candidate("first stage", FIRST_STAGE, 1, open_student(str(Path(student) / STAGE))[0])]
    result = evaluate(
        {"student": pair.sampler},
        pair.teacher,
        pair.t_range,
        judges,
        Listed(conditions, asked.labels_of(student), pair.texts),
        asked.num,
        asked.seed,
        asked.repeats,
        steps,
        heun,
        pair.path_of,
        more,
    )
    asked_for = {"student": student, "reference": reference, "clip": asked.clip}
    result = {**asked_for, "notes": notes(judges.reference, asked.num), **result, **environment()}
    if is_first_process():
        write_json(output, result)
        if Run(student).started:
            keep(Path(student), result)
        if not quiet:
            print_table(result)
    return result


def _with_base(student: str, pair: Opened, steps: Sequence[int], heun: bool) -> tuple[Conditions, Sequence[Candidate]]:
    """A cascade's conditions also remember what its base's teacher starts from, which gives rows of both teachers.

    Args:
        heun: whether 50 Heun steps of each are one.
    """
    conditions, base = pair.conditions, base_teacher(student, pair.conditions)
    if base is None or not isinstance(conditions, Cascade):
        return conditions, ()
    remembered = Remembered(**vars(conditions))
    return remembered, cascade_candidates(remembered, base, pair.teacher, steps, heun)


def read_steps(words: str | None) -> list[int]:
    """Comma-separated numbers of DDIM steps; the full table where none are given.

    Raises:
        BootdiffError: if one is no whole number from 1 to 1,000.
    """
    return list(DDIM_STEPS) if words is None else read_counts(words, "--ddim-steps")


def keep(folder: Path, result: Mapping[str, Any]) -> None:
    """Put the figures into the run: ``evaluation.json`` and the student's model card."""
    with lock(folder, PATIENCE):
        _keep(folder, result)


def _keep(folder: Path, result: Mapping[str, Any]) -> None:
    write_json(folder / "evaluation.json", result)
    config = Run(folder).config
    if (folder / "student" / FILE).exists():
        facts = read_json(folder / "student" / FILE)
        words = {**facts, "method": config["method"], "settings": config["settings"], "figures": result}
        parts = Parts(folder / "student")
        parts.size = facts.get("teacher_options", {}).get("size")
        adapter = adapter_for(facts["pipeline"], str(folder))(parts)
        write_text(folder / "student" / "README.md", model_card(words, adapter))


def number(value: float | None, form: str) -> str:
    """A figure, or a dash where it means nothing."""
    return "–" if value is None else format(value, form)


def print_table(result: Mapping[str, Any]) -> None:
    """The rows, on the terminal."""
    from rich.console import Console
    from rich.table import Table

    rows, table = result["rows"], Table(box=None)
    asked, fits = (any(key in row["figures"] for row in rows) for key in ("faithfulness", "clip_score"))
    more = [*(["faithful"] if asked else []), *(["CLIP score"] if fits else [])]
    for column in ("sampler", "calls", "Fréchet distance", *more, "path error", "images/s"):
        table.add_column(column, justify="left" if column == "sampler" else "right")
    for row in rows:
        distance = "–" if row["frechet_distance"] is None else f"{row['frechet_distance']:.3f}"
        share = [number(row["faithfulness"], ".1%")] if asked else []
        score = [number(row["figures"]["clip_score"]["value"], ".2f")] if fits else []
        figures = [
            str(row["calls"]),
            distance,
            *share,
            *score,
            number(row["path_error"], ".5f"),
            f"{row['images_per_second']:.0f}",
        ]
        table.add_row(row["name"], *figures, style="bold" if row["spacing"] == "one call" else None)
    console = Console(width=None if Console().is_terminal else 100)
    console.print(table)
    console.print(
        f"path error: mean squared difference to the path's end, 50 Heun steps from t = {result['t_max']:.3g} to "
        f"{result['t_min']:.3g}, for the same noise.",
        highlight=False,
    )
