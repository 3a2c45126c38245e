"""``bootdiff compare``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bootdiff.builtin import DIGITS
from bootdiff.cli.evaluate import clip_score, learned_prompts, warn_of
from bootdiff.data.prompts import read_prompt_labels
from bootdiff.errors import BootdiffError
from bootdiff.evaluation.compare import Comparison, Entry, student_entries, teacher_entries
from bootdiff.evaluation.comparison_files import markdown, write_comparison
from bootdiff.evaluation.measure import Listed
from bootdiff.evaluation.opening import Opened, open_group
from bootdiff.evaluation.processes import join
from bootdiff.evaluation.references import Reference, default_features, find_reference, image_shape, open_features
from bootdiff.evaluation.stock_samplers import kinds_for, read_samplers
from bootdiff.evaluation.tally import Judges
from bootdiff.pipelines.samplers import Choice
from bootdiff.progress import is_first_process
from bootdiff.runs import Run, environment
from bootdiff.teachers.weights import tensors_hash, weights_hash


@dataclass(frozen=True)
class Asked:
    """What a comparison is asked for.

    Args:
        samplers: ``name:steps,steps`` words; empty = a fitting dozen.
        clip: a CLIP model for the CLIP score.
    """

    features: str | None
    reference: str | None
    samplers: Sequence[str]
    num: int
    seed: int
    repeats: int
    clip: str | None = None


def run_compare(
    students: Sequence[str],
    teacher: str | None,
    asked: Asked,
    choice: Choice,
    labels: Sequence[int] | None,
    output: Path,
) -> list[dict[str, Any]]:
    """Measure every row that is not there yet, and write table, plot and pictures.

    Raises:
        BootdiffError: for students that do not belong together, or a folder that holds another comparison.
    """
    twice = next((name for name in students if students.count(name) > 1), None)
    if twice is not None:
        raise BootdiffError(f"{twice} is named twice; name every student once.")
    join()
    group = open_group(students, teacher, None, choice)
    model = group[0].teacher
    feature_name, reference_name = default_features(model, asked.features, asked.reference)
    space = open_features(feature_name, model)
    against = find_reference(reference_name, space, image_shape(model)) if space is not None else None
    samplers = read_samplers(asked.samplers, kinds_for(model), model.schedule.num_timesteps)
    if labels is None and choice.prompts is None and learned_prompts(students[0]) == DIGITS:
        labels = read_prompt_labels(DIGITS, None, "label")
    config = {
        "task": "compare", "students": list(students), "teacher": model.name, "choice": _plain(choice),
        "features": space.name if space else None, "reference": reference_name, "num": asked.num, "seed": asked.seed,
        "repeats": asked.repeats, "clip": asked.clip,
    }  # fmt: skip
    run = Run(output)
    sources = {"teacher": weights_hash(model.denoiser), **_identities(students, group), **_measures(against, labels)}
    run.check(config, sources)
    warn_of(against, asked.num)
    listed = Listed(group[0].conditions, labels, group[0].texts)
    entries: list[Entry] = [*teacher_entries(model, samplers, listed), *student_entries(students, group, labels)]
    judges = Judges(space, against, clip_score(asked.clip, group[0].texts))
    if is_first_process():  # nothing can be refused any more
        run.start(config, sources)
    comparison = Comparison(model, output / "rows", judges, asked.num, asked.seed, asked.repeats)
    rows = comparison.run(entries)
    if is_first_process():
        result = {**config, "rows": rows, **environment()}
        write_comparison(output, result, comparison.pictures(entries))
        print_comparison(result)
        print(f"comparison: {output}  (compare.md, .csv, .json; quality.png, samples.png)")
    return rows


def _plain(choice: Choice) -> dict[str, Any]:
    """What ``config.yaml`` says of a choice."""
    return {
        key: list(v) if isinstance(v, Sequence) and not isinstance(v, str) else v for key, v in asdict(choice).items()
    }


def _identities(students: Sequence[str], group: Sequence[Opened]) -> dict[str, str]:
    """Of every student's weights: another one in the same folder is another comparison."""
    named = zip(students, group, strict=True)
    networks = {name: getattr(o.sampler, "student", None) or getattr(o.sampler, "network", None) for name, o in named}
    return {f"student {name}": weights_hash(network) for name, network in networks.items() if network is not None}


def _measures(reference: Reference | None, labels: Sequence[int] | None) -> dict[str, str]:
    """Of what the samples are held against: other images under the same name are another comparison."""
    known = {} if reference is None else {"reference": tensors_hash(vars_of(reference))}
    return known if labels is None else {**known, "labels": tensors_hash({"labels": torch.tensor(list(labels))})}


def vars_of(reference: Reference) -> dict[str, Tensor]:
    """The tensors of a reference."""
    return {"mean": reference.statistics.mean, "covariance": reference.statistics.covariance}


def print_comparison(result: Mapping[str, Any]) -> None:
    """The table, on the terminal."""
    from rich.console import Console
    from rich.table import Table

    head, rows = markdown(result)
    table = Table(box=None)
    for number, column in enumerate(head):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row, cells in zip(result["rows"], rows, strict=True):
        table.add_row(*cells, style="bold" if row["kind"] == "student" else None)
    Console(width=None if Console().is_terminal else 140).print(table)
