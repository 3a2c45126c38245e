"""Students of one teacher side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bootdiff.core.errors import BootdiffError, Interrupted
from bootdiff.evaluation.comparison_files import write_comparison
from bootdiff.evaluation.curve import Chooser, is_shown
from bootdiff.evaluation.engine import Engine, Entry
from bootdiff.evaluation.entries import chooser_of, student_entries
from bootdiff.evaluation.measurement import Measurement, notes
from bootdiff.evaluation.processes import join
from bootdiff.evaluation.references import Reference
from bootdiff.evaluation.table import measured_table, table_entries
from bootdiff.samplers.choice import Choice
from bootdiff.samplers.rows import Candidate
from bootdiff.samplers.stock import all_samplers, read_samplers
from bootdiff.sampling.belonging import Opened
from bootdiff.sampling.opening import open_group
from bootdiff.storage.lock import lock
from bootdiff.storage.runs import Run, environment
from bootdiff.system.progress import is_first_process
from bootdiff.teachers.loading.weights import tensors_hash, weights_hash

#: samples in a row of the picture
SHOWN = 10


def compare_students(
    students: Sequence[str],
    asked: Measurement,
    output: Path,
    teacher: str | None = None,
    samplers: Sequence[str] = (),
    refine: Sequence[int] = (),
    level: float | None = None,
) -> dict[str, Any]:
    """Measure students of one teacher, and write table, plot and pictures; the same call resumes.

    Args:
        students: runs or student folders.
        asked: how many samples of what, who judges them, and beside which rows.
        output: a folder.
        teacher: where the students do not say.
        samplers: ``name:steps,steps`` words: rows beside DDIM's and the teacher's best.
        refine: also each student with so many steps of its teacher.
        level: the time at which the teacher takes over.

    Returns:
        What ``compare.json`` holds; every process of several has its rows.

    Raises:
        BootdiffError: for students that do not belong together, or a folder that holds another comparison.
    """
    twice = next((name for name in students if students.count(name) > 1), None)
    if twice is not None:
        raise BootdiffError(f"{twice} is named twice; name every student once.")
    join()
    group = open_group(students, teacher, asked.choice)
    model, labels = group[0].teacher, asked.labels_of(students[0])
    named = read_samplers(samplers, all_samplers(model), model.schedule.num_timesteps)
    judges, reference = asked.judges(model, group[0].texts)
    config = {
        "task": "compare", "students": list(students), "teacher": model.name, "choice": _plain(asked.choice),
        "features": judges.features.name if judges.features else None, "reference": reference, "num": asked.num,
        "seed": asked.seed, "repeats": asked.repeats, "clip": asked.clip, "refine": ",".join(map(str, refine)),
        "refine_from": level,
    }  # fmt: skip
    sources = {"teacher": weights_hash(model.denoiser), **_identities(students, group)}
    sources |= _measures(judges.reference, labels)
    run = Run(output)
    run.check(config, sources)
    chooser = chooser_of(students[0], group[0], Engine(judges, asked.noises), labels)
    further = list(student_entries(students, group, labels, refine, level))
    with lock(output):
        if is_first_process():  # nothing can be refused any more
            run.check(config, sources)
            run.start(config, sources)
        try:
            entries = table_entries(chooser, further, asked.calls, asked.heun, _named(chooser, named))
            table = measured_table(chooser, entries, latencies=True)
            pictures = _pictures(chooser.engine, entries, table["rows"]) if is_first_process() else {}
        except KeyboardInterrupt:
            raise Interrupted("stopped; finished rows are kept, so run the same command to go on.") from None
        result = {**config, "notes": notes(judges.reference, asked.num), **table, **environment()}
        if is_first_process():
            write_comparison(output, result, pictures)
    return result


def _named(chooser: Chooser, named: Mapping[str, Sequence[int]]) -> list[Candidate]:
    """The teacher's rows that were asked for by name."""
    found = [chooser.named(name, count) for name, steps in named.items() for count in steps]
    return [one for one in found if one is not None]


def _pictures(engine: Engine, entries: Sequence[Entry], rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """The first samples of the rows that are shown, as images."""
    return {
        row["name"]: engine.samples(entry, SHOWN) for entry, row in zip(entries, rows, strict=True) if is_shown(row)
    }


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
