"""``bootdiff compare``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bootdiff.cli.measurement import Measurement, notes
from bootdiff.cli.words import read_counts
from bootdiff.errors import BootdiffError, Interrupted
from bootdiff.evaluation.compare import Comparison, Entry, student_entries, teacher_entries
from bootdiff.evaluation.comparison_files import table_cells, write_comparison
from bootdiff.evaluation.measure import Listed
from bootdiff.evaluation.opening import Opened, open_group
from bootdiff.evaluation.processes import join
from bootdiff.evaluation.references import Reference
from bootdiff.evaluation.stock_samplers import kinds_for, read_samplers
from bootdiff.lock import lock
from bootdiff.pipelines.samplers import Choice
from bootdiff.progress import is_first_process
from bootdiff.runs import Run, environment
from bootdiff.teachers.weights import tensors_hash, weights_hash


def run_compare(
    students: Sequence[str],
    teacher: str | None,
    asked: Measurement,
    samplers: Sequence[str],
    output: Path,
    refine: str = "",
    level: float | None = None,
) -> list[dict[str, Any]]:
    """Measure every row that is not there yet, and write table, plot and pictures.

    Args:
        samplers: ``name:steps,steps`` words; empty = a fitting dozen.
        refine: ``k,k,...``: also each student with so many steps of its teacher.
        level: the time at which the teacher takes over.

    Raises:
        BootdiffError: for students that do not belong together, or a folder that holds another comparison.
    """
    twice = next((name for name in students if students.count(name) > 1), None)
    if twice is not None:
        raise BootdiffError(f"{twice} is named twice; name every student once.")
    counts = read_counts(refine, "--refine") if refine else []
    join()
    group = open_group(students, teacher, asked.choice)
    model, texts, labels = group[0].teacher, group[0].texts, asked.labels_of(students[0])
    rows = read_samplers(samplers, kinds_for(model), model.schedule.num_timesteps)
    judges, reference = asked.judges(model, texts)
    config = {
        "task": "compare", "students": list(students), "teacher": model.name, "choice": _plain(asked.choice),
        "features": judges.features.name if judges.features else None, "reference": reference, "num": asked.num,
        "seed": asked.seed, "repeats": asked.repeats, "clip": asked.clip, "refine": refine, "refine_from": level,
    }  # fmt: skip
    run, sources = Run(output), {"teacher": weights_hash(model.denoiser), **_identities(students, group)}
    sources |= _measures(judges.reference, labels)
    run.check(config, sources)
    listed = Listed(group[0].conditions, labels, texts)
    entries: list[Entry] = [
        *teacher_entries(model, rows, listed),
        *student_entries(students, group, labels, counts, level),
    ]
    with lock(output):
        if is_first_process():  # nothing can be refused any more
            run.check(config, sources)
            run.start(config, sources)
        comparison = Comparison(model, output / "rows", judges, asked.num, asked.seed, asked.repeats)
        try:
            measured = comparison.run(entries)
        except KeyboardInterrupt:
            raise Interrupted("stopped; finished rows are kept, so run the same command to go on.") from None
        config = {**config, "notes": notes(judges.reference, asked.num)}
        return _finish(output, config, measured, comparison.pictures(entries))


def _finish(
    output: Path, config: Mapping[str, Any], rows: list[dict[str, Any]], pictures: Mapping[str, Tensor]
) -> list[dict[str, Any]]:
    """Files, and words on the terminal."""
    if is_first_process():
        result = {**config, "rows": rows, **environment()}
        write_comparison(output, result, pictures)
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
    known: dict[str, dict[str, Tensor]] = {}
    if reference is not None:
        known["reference"] = {"mean": reference.statistics.mean, "covariance": reference.statistics.covariance}
    if labels is not None:
        known["labels"] = {"labels": torch.tensor(list(labels))}
    return {name: tensors_hash(tensors) for name, tensors in known.items()}


def print_comparison(result: Mapping[str, Any]) -> None:
    """The table, on the terminal; its intervals are in the files."""
    from rich.console import Console
    from rich.table import Table

    head, rows = table_cells(result, intervals=False)
    table = Table(box=None)
    for number, column in enumerate(head):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row, cells in zip(result["rows"], rows, strict=True):
        table.add_row(*cells, style="bold" if row["kind"] == "student" else None)
    Console(width=None if Console().is_terminal else 140).print(table)
