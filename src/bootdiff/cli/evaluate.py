"""``bootdiff evaluate``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bootdiff.builtin import BUILTIN_TEACHERS
from bootdiff.cli.measurement import Measurement, notes
from bootdiff.cli.tables import print_table
from bootdiff.core.errors import BootdiffError
from bootdiff.evaluation.compare import chooser_of, rows_beside
from bootdiff.evaluation.curve import Chooser, Stock
from bootdiff.evaluation.engine import Engine, Entry
from bootdiff.evaluation.evaluate import measured_table, table_entries
from bootdiff.evaluation.measure import Listed
from bootdiff.evaluation.processes import join
from bootdiff.export.card import model_card
from bootdiff.sampling.opening import open_alone, open_pair
from bootdiff.storage.files import read_json, write_json, write_text
from bootdiff.storage.lock import lock
from bootdiff.storage.runs import Run, environment
from bootdiff.students.files import FILE
from bootdiff.system.progress import is_first_process
from bootdiff.teachers.adapters import adapter_for
from bootdiff.teachers.loading.parts import Parts

#: seconds that another process, which puts its figures into the same run, is waited for
PATIENCE = 10.0


def run_evaluate(
    name: str,
    asked: Measurement,
    output: Path,
    teacher: str | None = None,
    teacher_options: Mapping[str, str] | None = None,
    path_end: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Measure a student beside its teacher, or a teacher alone; print a table and write JSON.

    A run also keeps its figures for its report and its model card.

    Args:
        name: a run, a student or a teacher.
        teacher_options: revision, variant and dtype, over those that the student's own teacher was loaded with.
        path_end: whether the exact end of the student's own path is a row, where it starts elsewhere.
        quiet: whether no table is printed.
    """
    if output.suffix != ".json":
        raise BootdiffError(f"--output {output}: expected a file that ends in .json.")
    join()
    alone = is_teacher(name)
    if alone:
        model, conditions = open_alone(name, teacher_options, asked.choice)
        judges, reference = asked.judges(model, asked.choice.prompts)
        listed = Listed(conditions, asked.labels_of(name), asked.choice.prompts)
        chooser = Chooser(Engine(judges, asked.noises), Stock(model), model, listed)
        further: list[Entry] = []
    else:
        pair = open_pair(name, teacher, teacher_options, asked.choice)
        judges, reference = asked.judges(pair.teacher, pair.texts)
        labels = asked.labels_of(name)
        chooser = chooser_of(name, pair, Engine(judges, asked.noises), labels)
        further = rows_beside(name, pair, chooser.listed, labels, path_end)
    result = measured_table(chooser, table_entries(chooser, further, asked.calls, asked.heun))
    asked_for = {"student": None if alone else name, "reference": reference, "clip": asked.clip}
    result = {**asked_for, "notes": notes(judges.reference, asked.num), **result, **environment()}
    if is_first_process():
        write_json(output, result)
        if Run(name).started:
            keep(Path(name), result)
        if not quiet:
            print_table(result, asked.everything)
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
