"""The work of ``bootdiff compare``: students of one teacher are measured side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bootdiff.core.errors import BootdiffError, Interrupted
from bootdiff.data.pictures import on_scale, own_scale, scale_in_words
from bootdiff.evaluation.comparison_files import write_comparison
from bootdiff.evaluation.curve import Chooser, is_shown
from bootdiff.evaluation.engine import Engine, Entry
from bootdiff.evaluation.entries import chooser_of, student_entries
from bootdiff.evaluation.measurement import Measurement, notes
from bootdiff.evaluation.processes import join
from bootdiff.evaluation.references import Reference
from bootdiff.evaluation.table import measured_table, table_entries
from bootdiff.samplers.choice import Choice
from bootdiff.samplers.rows import MOST_STEPS, Candidate
from bootdiff.samplers.stock import all_samplers, read_samplers
from bootdiff.sampling.belonging import Opened
from bootdiff.sampling.opening import open_group
from bootdiff.storage.lock import lock
from bootdiff.storage.passes import trained_passes
from bootdiff.storage.runs import Run, environment
from bootdiff.system.progress import is_first_process
from bootdiff.teachers import Teacher, adapter_of
from bootdiff.teachers.loading.weights import tensors_hash, weights_hash

#: the number of samples in a row of the picture
SHOWN = 10


def compare_students(
    students: str | Path | Sequence[str | Path],
    asked: Measurement,
    output: Path | str,
    teacher: str | Teacher | None = None,
    samplers: str | Sequence[str] = (),
    refine: Sequence[int] = (),
    level: float | None = None,
) -> dict[str, Any]:
    """Measure students of one teacher, and write a table, a plot and pictures; the same call resumes.

    Args:
        students: the runs or student folders.
        asked: how many samples of what are measured, by whom, and beside which rows.
        output: the folder of the comparison.
        teacher: the teacher or its name, if the students do not say it.
        samplers: words ``name:steps,steps`` that name further rows, beside DDIM's and the teacher's best.
        refine: numbers of teacher steps; each student also gets a row with each of them.
        level: the time at which the teacher takes over in these rows.

    Returns:
        The content of ``compare.json``; where several processes run, each of them gets it.

    Raises:
        BootdiffError: if the students do not belong together, or the folder holds another comparison.
    """
    names, words = _names(students, refine), samplers.split() if isinstance(samplers, str) else samplers
    join()
    group = open_group(names, teacher, asked.choice)
    model, labels = group[0].teacher, asked.labels_of(names[0])
    named = read_samplers(words, all_samplers(model), model.schedule.num_timesteps)
    judges, reference = asked.judges(model, group[0].texts)
    config = {
        "task": "compare", "students": names, "teacher": model.name, "choice": _plain(asked.choice),
        "features": judges.features.name if judges.features else None, "reference": reference, "num": asked.num,
        "seed": asked.seed, "repeats": asked.repeats, "clip": asked.clip, "refine": _refine_words(output, refine),
        "refine_from": level,
    }  # fmt: skip
    sources = {"teacher": weights_hash(model.denoiser), **_identities(names, group)}
    sources |= _measures(judges.reference, labels)
    run = Run(output)
    run.check(config, sources)
    chooser = chooser_of(names[0], group[0], Engine(judges, asked.noises), labels)
    further = list(student_entries(names, group, labels, refine, level))
    with lock(run.folder):
        if is_first_process():  # nothing can be refused any more
            run.check(config, sources)
            run.start(config, sources)
        try:
            entries = table_entries(chooser, further, asked.calls, asked.heun, _named(chooser, named))
            table = measured_table(chooser, entries, latencies=True)
            pictures = _pictures(chooser.engine, entries, table["rows"]) if is_first_process() else {}
        except KeyboardInterrupt:
            raise Interrupted("stopped; finished rows are kept, so run the same command to go on.") from None
        cost = {"passes": {name: trained_passes(Run.around(name).folder) for name in names}}
        scale = own_scale(list(pictures.values())) if pictures and adapter_of(model) is None else None
        told = [*notes(judges.reference, asked.num), *([f"samples.png: {scale_in_words(scale)}"] if scale else [])]
        result = {**config, "notes": told, **table, **cost, **environment()}
        if is_first_process():
            write_comparison(run.folder, result, {name: on_scale(one, scale) for name, one in pictures.items()})
    return result


def _names(students: str | Path | Sequence[str | Path], refine: Sequence[int]) -> list[str]:
    """Return the students' names, after checking what can be checked before anything is opened."""
    names = [str(students)] if isinstance(students, str | Path) else [str(student) for student in students]
    if not names:
        raise BootdiffError("expected students to compare, got none.")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BootdiffError(f"{twice} is named twice; name every student once.")
    wrong = next((count for count in refine if not 1 <= count <= MOST_STEPS), None)
    if wrong is not None:
        raise BootdiffError(f"refine expects whole numbers of steps from 1 to {MOST_STEPS}, got {wrong}.")
    return names


def _refine_words(output: Path | str, refine: Sequence[int]) -> str:
    """Return the numbers of steps as text: as the run that is there wrote them, if they are the same."""
    run, words = Run(output), ",".join(map(str, refine))
    there = run.config.get("refine") if run.started else None
    same = isinstance(there, str) and [part.strip().lstrip("0") for part in there.split(",")] == words.split(",")
    return str(there) if same else words


def _named(chooser: Chooser, named: Mapping[str, Sequence[int]]) -> list[Candidate]:
    """Return the teacher's rows that were asked for by name."""
    found = [chooser.named(name, count) for name, steps in named.items() for count in steps]
    return [one for one in found if one is not None]


def _pictures(engine: Engine, entries: Sequence[Entry], rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Return the first samples of each row that is shown, as images (SHOWN, c, h, w) by the row's name."""
    return {
        row["name"]: engine.samples(entry, SHOWN) for entry, row in zip(entries, rows, strict=True) if is_shown(row)
    }


def _plain(choice: Choice) -> dict[str, Any]:
    """Return a choice as ``config.yaml`` holds it."""
    return {
        key: list(v) if isinstance(v, Sequence) and not isinstance(v, str) else v for key, v in asdict(choice).items()
    }


def _identities(students: Sequence[str], group: Sequence[Opened]) -> dict[str, str]:
    """Return a hash of every student's weights, because another student makes another comparison."""
    named = zip(students, group, strict=True)
    networks = {name: getattr(o.sampler, "student", None) or getattr(o.sampler, "network", None) for name, o in named}
    return {f"student {name}": weights_hash(network) for name, network in networks.items() if network is not None}


def _measures(reference: Reference | None, labels: Sequence[int] | None) -> dict[str, str]:
    """Return hashes of what samples are compared with.

    Other images under the same name make another comparison.
    """
    known: dict[str, dict[str, Tensor]] = {}
    if reference is not None:
        known["reference"] = {"mean": reference.statistics.mean, "covariance": reference.statistics.covariance}
    if labels is not None:
        known["labels"] = {"labels": torch.tensor(list(labels))}
    return {name: tensors_hash(tensors) for name, tensors in known.items()}
