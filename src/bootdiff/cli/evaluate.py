"""``bootdiff evaluate``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bootdiff.builtin import DIGITS
from bootdiff.data.conditions import Cascade
from bootdiff.data.prompts import read_prompt_labels
from bootdiff.errors import BootdiffError
from bootdiff.evaluation.cascades import Remembered, cascade_candidates
from bootdiff.evaluation.evaluate import evaluate
from bootdiff.evaluation.opening import base_teacher, open_pair
from bootdiff.evaluation.processes import join
from bootdiff.evaluation.references import Reference, default_features, find_reference, image_shape, open_features
from bootdiff.evaluation.rows import DDIM_STEPS, Candidate
from bootdiff.files import read_json, write_json, write_text
from bootdiff.metrics.clip_score import ClipScore
from bootdiff.pipelines.card import model_card
from bootdiff.pipelines.samplers import ANY, Choice
from bootdiff.pipelines.student_files import FILE
from bootdiff.progress import is_first_process
from bootdiff.runs import Run, environment
from bootdiff.teachers.adapters import adapter_for
from bootdiff.teachers.parts import Parts


def run_evaluate(
    student: str,
    teacher: str | None,
    reference: str | None,
    features: str | None,
    num: int,
    seed: int,
    repeats: int,
    ddim_steps: str | None,
    heun: bool,
    output: Path,
    teacher_options: Mapping[str, str] | None = None,
    choice: Choice = ANY,
    labels: Sequence[int] | None = None,
    quiet: bool = False,
    clip: str | None = None,
) -> dict[str, Any]:
    """Measure, print a table, write JSON; a run also keeps it for its report and model card.

    Args:
        labels: the classes that the prompts ask for.
        teacher_options: revision, variant and dtype, over those that the student's own teacher was loaded with.
    """
    if output.suffix != ".json":
        raise BootdiffError(f"--output {output}: expected a file that ends in .json.")
    join()
    steps = read_steps(ddim_steps)
    if labels is None and choice.prompts is None and learned_prompts(student) == DIGITS:
        labels = read_prompt_labels(DIGITS, None, "label")
    pair = open_pair(student, teacher, teacher_options, choice)
    model, facts = pair.teacher, pair.facts
    feature_name, reference_name = default_features(model, features, reference)
    space = open_features(feature_name, model)
    against = find_reference(reference_name, space, image_shape(model)) if space is not None else None
    warn_of(against, num)
    times = float(facts.get("t_min", model.t_range[0])), float(facts.get("t_max", model.t_range[1]))
    more: Sequence[Candidate] = ()
    conditions = pair.conditions
    base = base_teacher(student, conditions)
    if base is not None and isinstance(conditions, Cascade):
        conditions = Remembered(**vars(conditions))
        more = cascade_candidates(conditions, base, model, steps)
    result = evaluate(
        {"student": pair.sampler},
        model,
        times,
        space,
        against,
        num,
        seed,
        repeats,
        steps,
        heun,
        path_of=pair.path_of,
        conditions=conditions,
        labels=labels,
        more=more,
        clip=clip_score(clip, pair.texts),
        texts=pair.texts,
    )
    result = {"student": student, "reference": reference_name, "clip": clip, **result, **environment()}
    if is_first_process():
        write_json(output, result)
        if Run(student).started:
            keep(Path(student), result)
        if not quiet:
            print_table(result)
    return result


def clip_score(name: str | None, texts: Sequence[str] | None) -> ClipScore | None:
    """The CLIP model, loaded.

    Raises:
        BootdiffError: where there are no prompts to be fitted.
    """
    if name is None:
        return None
    if texts is None:
        raise BootdiffError("--clip measures how well images fit their prompts; this student is not given any.")
    return ClipScore(name).load()


def warn_of(reference: Reference | None, num: int) -> None:
    """A line where a covariance is singular, so that its Fréchet distances are too large and too sure."""
    if reference is None or not is_first_process():
        return
    size = len(reference.statistics.mean)
    if reference.warning is not None:
        print(f"bootdiff: note: {reference.warning}", file=sys.stderr)
    if num <= size:
        print(
            f"bootdiff: note: {num} samples for {size} features: their covariance is singular and the Fréchet distance "
            f"too large; take more than {size}.",
            file=sys.stderr,
        )


def learned_prompts(student: str) -> str | None:
    """The name of the prompts that a run was distilled on."""
    run = Run.around(student)
    return run.config["settings"].get("prompts") if run.started else None


def read_steps(words: str | None) -> list[int]:
    """Comma-separated numbers of DDIM steps; the full table where none are given.

    Raises:
        BootdiffError: if one is no whole number from 1 to 1,000.
    """
    if words is None:
        return list(DDIM_STEPS)
    try:
        steps = [int(word) for word in words.split(",")]
    except ValueError:
        steps = [0]
    if not all(1 <= step <= 1000 for step in steps):
        raise BootdiffError(f"--ddim-steps expects whole numbers from 1 to 1000 such as 1,10,50, got '{words}'.")
    return steps


def keep(folder: Path, result: Mapping[str, Any]) -> None:
    """Put the figures into the run: ``evaluation.json`` and the student's model card."""
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

    table, asked = Table(box=None), any(row["faithfulness"] is not None for row in result["rows"])
    faithful = ["faithful"] if asked else []
    for column in ("sampler", "calls", "Fréchet distance", *faithful, "path error", "images/s"):
        table.add_column(column, justify="left" if column == "sampler" else "right")
    for row in result["rows"]:
        distance = "–" if row["frechet_distance"] is None else f"{row['frechet_distance']:.3f}"
        share = [f"{row['faithfulness']:.1%}"] if asked else []
        figures = [
            str(row["calls"]),
            distance,
            *share,
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
