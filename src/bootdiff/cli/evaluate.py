"""``bootdiff evaluate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bootdiff.builtin import BUILTIN_TEACHERS
from bootdiff.cli.measurement import Measurement, notes
from bootdiff.cli.tables import print_table
from bootdiff.data.conditions import Cascade
from bootdiff.errors import BootdiffError
from bootdiff.evaluation.cascades import BothStages, Remembered
from bootdiff.evaluation.compare import first_stage_entry, student_entries
from bootdiff.evaluation.curve import LADDER, Chooser, Samplers, Stock
from bootdiff.evaluation.engine import Engine, Entry
from bootdiff.evaluation.evaluate import measured_table, table_entries, teachers_conditions
from bootdiff.evaluation.measure import Listed
from bootdiff.evaluation.opening import Opened, base_teacher, open_alone, open_pair
from bootdiff.evaluation.processes import join
from bootdiff.evaluation.rows import path_end as exact_end
from bootdiff.evaluation.rows import starts_elsewhere
from bootdiff.files import read_json, write_json, write_text
from bootdiff.lock import lock
from bootdiff.pipelines.card import model_card
from bootdiff.pipelines.student_files import FILE
from bootdiff.progress import is_first_process
from bootdiff.runs import Run, environment
from bootdiff.teachers.adapters import adapter_for
from bootdiff.teachers.parts import Parts

#: seconds that another process, which puts its figures into the same run, is waited for
PATIENCE = 10.0


def run_evaluate(
    name: str,
    asked: Measurement,
    output: Path,
    teacher: str | None = None,
    teacher_options: Mapping[str, str] | None = None,
    calls: Sequence[int] = LADDER,
    heun: bool = True,
    everything: bool = False,
    quiet: bool = False,
    path_end: bool = False,
) -> dict[str, Any]:
    """Measure a student beside its teacher, or a teacher alone; print a table and write JSON.

    A run also keeps its figures for its report and its model card.

    Args:
        name: a run, a student or a teacher.
        teacher_options: revision, variant and dtype, over those that the student's own teacher was loaded with.
        calls: network calls at which the teacher's best sampler is looked for.
        heun: whether the exact end of the teacher's path is a row.
        everything: whether the terminal shows every measured row.
        path_end: whether the exact end of the student's own path is a row, where it starts elsewhere.
    """
    if output.suffix != ".json":
        raise BootdiffError(f"--output {output}: expected a file that ends in .json.")
    join()
    if is_teacher(name):
        model, conditions = open_alone(name, teacher_options, asked.choice)
        judges, reference = asked.judges(model, asked.choice.prompts)
        listed = Listed(conditions, asked.labels_of(name), asked.choice.prompts)
        chooser = Chooser(Engine(judges, asked.noises), Stock(model), model, listed)
        further: list[Entry] = []
    else:
        pair = open_pair(name, teacher, teacher_options, asked.choice)
        judges, reference = asked.judges(pair.teacher, pair.texts)
        chooser, further = chooser_and_rows(name, pair, Engine(judges, asked.noises), asked.labels_of(name), path_end)
    result = measured_table(chooser, table_entries(chooser, further, calls, heun))
    asked_for = {"student": name, "reference": reference, "clip": asked.clip}
    result = {**asked_for, "notes": notes(judges.reference, asked.num), **result, **environment()}
    if is_first_process():
        write_json(output, result)
        if Run(name).started:
            keep(Path(name), result)
        if not quiet:
            print_table(result, everything)
    return result


def is_teacher(name: str) -> bool:
    """Whether a name is a teacher's: a builtin, a single file, a hub id, or a pipeline that is no student."""
    folder = Path(name)
    if not folder.exists():
        # owner/model is a hub's; a path below a folder that is here was meant as a path.
        hub = name.count("/") == 1 and name[0] not in "./~" and not folder.parent.is_dir()
        return name in BUILTIN_TEACHERS or hub
    if folder.is_file():
        return True
    return (folder / "model_index.json").is_file() and not (folder / FILE).is_file()


def chooser_and_rows(
    name: str, pair: Opened, engine: Engine, labels: Sequence[int] | None, ends: bool = False
) -> tuple[Chooser, list[Entry]]:
    """Of a student: the chooser of its teacher's samplers, and the rows beside the teacher's own.

    A cascade is compared with both its teachers, so that its second stage alone is no row.

    Args:
        ends: whether the exact end of the student's path is a row.
    """
    (student,) = student_entries([name], [pair], labels, titles=[None])
    listed = Listed(teachers_conditions(pair.teacher, pair.conditions), labels, pair.texts)
    samplers: Samplers = Stock(pair.teacher)
    base = base_teacher(name, pair.conditions)
    if base is not None and isinstance(pair.conditions, Cascade):
        remembered = Remembered(**vars(pair.conditions))
        listed, samplers = Listed(remembered, labels, pair.texts), BothStages(remembered, base, pair.teacher)
    further = [student]
    first = first_stage_entry(name, pair, labels)
    further = [first, *further] if first is not None else further
    if ends and starts_elsewhere(pair.teacher, pair.t_range):
        own = Listed(listed.conditions, labels, pair.texts)
        further = [Entry(exact_end(pair.path_of, pair.t_range), pair.path_of, own), *further]
    return Chooser(engine, samplers, pair.teacher, listed), further


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
