"""The work of ``bootdiff evaluate``: one table for students and their teacher.

All rows have the same noises, the same features and the same reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bootdiff.core.errors import BootdiffError, shown
from bootdiff.data.conditions import Unconditional
from bootdiff.evaluation.curve import LADDER, Chooser, Stock
from bootdiff.evaluation.engine import Engine, Entry, Noises
from bootdiff.evaluation.entries import chooser_of, own_calls, rows_beside
from bootdiff.evaluation.measure import Listed
from bootdiff.evaluation.measurement import Measurement, check_ladder, notes
from bootdiff.evaluation.processes import join
from bootdiff.evaluation.table import measured_table, table_entries, teachers_conditions
from bootdiff.evaluation.tally import Judges
from bootdiff.evaluation.time_search import searched_entry
from bootdiff.export.card import model_card
from bootdiff.samplers.base import Sampler
from bootdiff.samplers.rows import Candidate, Row, path_end, starts_elsewhere
from bootdiff.sampling.belonging import Opened
from bootdiff.sampling.opening import is_teacher, open_alone, open_pair
from bootdiff.storage.files import write_json, write_text
from bootdiff.storage.lock import lock
from bootdiff.storage.passes import trained_passes
from bootdiff.storage.runs import Run, environment
from bootdiff.students.card import FILE, read_card
from bootdiff.system.progress import is_first_process
from bootdiff.teachers import Teacher
from bootdiff.teachers.adapters import adapter_for
from bootdiff.teachers.loading.parts import Parts

#: the seconds to wait for another process that puts its figures into the same run
PATIENCE = 10.0

NOBODY = Judges()


def evaluate(
    students: Mapping[str, Sampler],
    teacher: Teacher,
    t_range: tuple[float, float],
    judges: Judges = NOBODY,
    listed: Listed = Listed(Unconditional()),
    num: int = 2000,
    seed: int = 0,
    repeats: int = 1,
    calls: Sequence[int] = LADDER,
    heun: bool = True,
    path_of: Teacher | None = None,
) -> dict[str, Any]:
    """Measure students and their teacher from the same noises and conditions, and return the table.

    Args:
        students: samplers by their names; one that takes several calls for an image says so by its ``calls``.
        t_range: (t_min, t_max) of the path that the students learned.
        judges: the feature space, the reference and the CLIP model; without any, only path error and speed are
            measured.
        listed: the conditions of the samples.
        num: the number of samples for each noise seed.
        seed: the seed of the first noise; noise seed r uses the samples of seed ``seed + r · num``.
        repeats: the number of noise seeds.
        calls: the numbers of network calls at which the teacher's best sampler is looked for.
        heun: whether the exact ends of the teacher's path, and of the students', are rows.
        path_of: the teacher whose path the students learned, if their targets were limited otherwise than the teacher.

    Returns:
        A dictionary that can be written as JSON; its ``rows`` are the teacher's, then the students'.
    """
    if not isinstance(students, Mapping):
        raise BootdiffError(
            f"evaluate expects samplers by their names, got {shown(students)}; of a folder: evaluate_student."
        )
    if num < 1 or repeats < 1:
        raise BootdiffError(f"evaluate expects at least one sample and one noise seed, got {num} and {repeats}.")
    check_ladder(calls)
    engine = Engine(judges, Noises(num, seed, repeats))
    path = (path_of or teacher, t_range)
    entries = [
        Entry(
            Candidate(Row("student", *own_calls(sampler), own_calls(sampler)[1], title=name), sampler),
            teacher,
            listed,
            path,
        )
        for name, sampler in students.items()
    ]
    own = Listed(teachers_conditions(teacher, listed.conditions), listed.labels, listed.texts)
    chooser = Chooser(engine, Stock(teacher), teacher, own)
    ends = [Entry(path_end(*path), path[0], own)] if heun and starts_elsewhere(*path) else []
    return measured_table(chooser, table_entries(chooser, [*ends, *entries], calls, heun))


def evaluate_student(
    name: str | Path | Teacher,
    asked: Measurement,
    output: Path | str,
    teacher: str | Teacher | None = None,
    teacher_options: Mapping[str, Any] | None = None,
    path_end: bool = False,
    search_times: int | None = None,
) -> dict[str, Any]:
    """Measure a student beside its teacher, or a teacher alone, and write the table as JSON.

    A run also keeps its figures, for its report and its model card.

    Args:
        name: a run, a student folder or a teacher, which may be the teacher itself.
        asked: how many samples of what are measured, by whom, and beside which rows.
        output: the JSON file to write.
        teacher: a teacher, or its name, to use in place of the one that the student names.
        teacher_options: revision, variant and dtype, which take precedence over those of the student's own teacher.
        path_end: whether the exact end of the student's own path is a row, if it starts elsewhere than the teacher's.
        search_times: a number of calls whose best times are searched, for the run of a consistency student.

    Returns:
        The content of the file; where several processes run, each of them gets it.

    Raises:
        BootdiffError: if the student or its teacher cannot be opened, or something does not fit them.
    """
    alone = name if isinstance(name, Teacher) else None
    name, output = name.name if isinstance(name, Teacher) else str(name), Path(output)
    if output.suffix != ".json":
        raise BootdiffError(f"output {output}: expected a file that ends in .json.")
    join()
    if alone is not None or is_teacher(name):
        if teacher is not None or path_end or search_times is not None:
            raise BootdiffError(
                f"{name} is a teacher, so another teacher, the end of a path and a student's times mean nothing to it; "
                "leave them out."
            )
        chooser, reference, further = _teacher_alone(alone or name, asked, teacher_options)
        pair, searched = None, None
    else:
        pair, chooser, reference, further = _student_beside(name, asked, teacher, teacher_options, path_end)
        searched = None if search_times is None else _with_times(pair, chooser, further, search_times)
    result = measured_table(chooser, table_entries(chooser, further, asked.calls, asked.heun))
    asked_for: dict[str, Any] = {
        "student": name if pair is not None else None,
        "reference": reference,
        "clip": asked.clip,
    }
    if searched is not None:
        asked_for["time_search"] = searched
    cost = {"passes": None if pair is None else trained_passes(Run.around(name).folder)}
    result = {
        **asked_for,
        "notes": notes(chooser.engine.judges.reference, asked.num),
        **result,
        **cost,
        **environment(),
    }
    if is_first_process():
        write_json(output, result)
        if pair is not None and Run(name).started:
            keep(Path(name), result)
    return result


def _teacher_alone(
    name: str | Teacher, asked: Measurement, teacher_options: Mapping[str, Any] | None
) -> tuple[Chooser, str | None, list[Entry]]:
    """Return what chooses the samplers of a teacher by itself, the reference's name, and no further rows."""
    model, conditions = open_alone(name, teacher_options, asked.choice)
    judges, reference = asked.judges(model, asked.choice.prompts)
    listed = Listed(conditions, asked.labels_of(model.name), asked.choice.prompts)
    return Chooser(Engine(judges, asked.noises), Stock(model), model, listed), reference, []


def _student_beside(
    name: str,
    asked: Measurement,
    teacher: str | Teacher | None,
    teacher_options: Mapping[str, Any] | None,
    path_end: bool,
) -> tuple[Opened, Chooser, str | None, list[Entry]]:
    """Return the opened student, what chooses its teacher's samplers, the reference's name, and the student's rows."""
    pair = open_pair(name, teacher, teacher_options, asked.choice)
    judges, reference = asked.judges(pair.teacher, pair.texts)
    labels = asked.labels_of(name)
    chooser = chooser_of(name, pair, Engine(judges, asked.noises), labels)
    return pair, chooser, reference, rows_beside(name, pair, chooser.listed, labels, path_end)


def _with_times(pair: Opened, chooser: Chooser, rows: list[Entry], calls: int) -> dict[str, Any]:
    """Search the times of so many calls, add the row of the best to the others, and return the search as JSON."""
    own = next(entry for entry in rows if entry.candidate.sample is pair.sampler)
    entry, told = searched_entry(chooser, pair.sampler, own, calls)
    rows.append(entry)
    return told


def keep(folder: Path, result: Mapping[str, Any]) -> None:
    """Keep the figures in the run, as ``evaluation.json`` and in the student's model card."""
    with lock(folder, PATIENCE):
        _keep(folder, result)


def _keep(folder: Path, result: Mapping[str, Any]) -> None:
    run = Run(folder)
    write_json(run.figures, result)
    if (run.student / FILE).exists():
        card, config = read_card(run.student), run.config
        adapter = adapter_for(str(card.pipeline), str(folder))(Parts(run.student, size=card.origin.size))
        words = {"method": config["method"], "settings": config["settings"], "figures": result}
        words["passes"] = trained_passes(folder)
        write_text(run.student / "README.md", model_card(card, adapter, words, read_card(run.student_path)))
