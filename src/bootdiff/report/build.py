"""The making of ``report.html`` from run folders."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from bootdiff.report.curves import convergence, losses, losses_together
from bootdiff.report.finished import Finished, open_finished, open_several, told_if_damaged
from bootdiff.report.page import check_output, note, page
from bootdiff.report.privacy import without_place
from bootdiff.report.samples import samples_and_path, samples_together
from bootdiff.report.settings import commands, differences_table, settings_table
from bootdiff.report.tables import figures_table, students_table
from bootdiff.report.verdicts import leaders, verdict_box
from bootdiff.storage.files import write_text
from bootdiff.storage.passes import passes_in_words, trained_passes
from bootdiff.storage.runs import DONE, Run, read_done
from bootdiff.students.card import read_card
from bootdiff.teachers import Teacher

#: the file of a report on several runs
SEVERAL = Path("report.html")


def build_report(folder: Path | str, teacher: str | Teacher | None = None, output: Path | str | None = None) -> Path:
    """Write a finished run's report and return its path.

    Args:
        folder: the run's folder.
        teacher: the teacher or its name, if the run does not say it or the teacher has moved. The samples of a plain
            module's student are shown only if the teacher itself is given.
        output: the file to write; by default ``report.html`` in the run.

    Raises:
        BootdiffError: if the folder holds no finished distillation, or ``output`` is something other than a report.
    """
    folder = Path(folder)
    place = folder / "report.html" if output is None else Path(output)
    if output is not None:
        check_output(place)
    with told_if_damaged([folder]):
        run = open_finished(folder)
        parts = [
            verdict_box(run),
            note(f"Method {run.config['method']}, run {folder.resolve().name}.{_cost(run)}"),
            _not_data_free([run]),
            _not_exported([run]),
            _samples(run, teacher),
            figures_table(run.evaluation),
            convergence([run]),
            losses(run),
            *(part for number, stage in enumerate(run.earlier) for part in _stage(stage, number)),
            settings_table(run),
        ]
        title = f"One-step student of {without_place(run.config['teacher'])}"
    return _write(place, title, parts)


def build_comparison(folders: str | Path | Sequence[Path | str], output: Path | str = SEVERAL) -> Path:
    """Write one page that shows finished runs side by side, and return its path.

    Args:
        folders: two or more run folders; their teachers may differ.

    Raises:
        BootdiffError: if one holds no finished distillation or is named twice, or ``output`` is no report.
    """
    named = [folders] if isinstance(folders, str | Path) else folders
    places, output = [Path(folder) for folder in named], Path(output)
    check_output(output)
    with told_if_damaged(places):
        runs = open_several(places)
        parts = [
            *(f"<p><strong>{html.escape(words)}.</strong></p>" for words in leaders(runs)),
            *(verdict_box(run, run.name) for run in runs),
            _not_data_free(runs),
            _not_exported(runs),
            students_table(runs),
            samples_together(runs),
            convergence(runs),
            losses_together(runs),
            differences_table(runs),
            commands(runs),
        ]
    return _write(output, f"{len(runs)} runs side by side", parts)


def _write(path: Path, title: str, parts: Sequence[str]) -> Path:
    write_text(path, page(title, parts))
    return path


def _not_data_free(runs: Sequence[Finished]) -> str:
    """Return a note on the students that learned from images, as HTML; nothing if there are none."""
    names = [run.name for run in runs if not read_card(Run(run.folder).student_path).data_free]
    return note(f"Not free of data: {' and '.join(names)} read images of a data set.") if names else ""


def _not_exported(runs: Sequence[Finished]) -> str:
    """Return a note on each student that no stock pipeline holds, as HTML; nothing if there are none."""
    reasons = {run.name: read_done(run.folder).get("not_exported") for run in runs if (run.folder / DONE).is_file()}
    return "".join(note(f"No stock pipeline of {name}: {reason}") for name, reason in reasons.items() if reason)


def _cost(run: Finished) -> str:
    """Return a sentence on what the training cost; nothing of a run that did not count it."""
    passes = trained_passes(run.folder)
    return "" if passes is None else f" Its training took {passes_in_words(passes)} network passes."


def _stage(stage: Finished, number: int) -> list[str]:
    """Return the curves of an earlier stage of a run, as HTML; ``number`` counts the stages from 0."""
    verdict, title = stage.verdict, "First stage" if number == 0 else f"Stage {stage.name}"
    words = [note(f"{verdict.word.capitalize()}: {verdict.sentence}")] if verdict is not None else []
    return [*words, convergence([stage], f"{title}: convergence"), losses(stage, f"{title}: losses")]


def _samples(run: Finished, teacher: str | Teacher | None) -> str:
    """Return the pictures of samples, as HTML.

    For the student of a plain module it is a note if its teacher is not at hand, by which alone it can be built.
    """
    if read_card(Run(run.folder).student_path).pipeline is None and not isinstance(teacher, Teacher):
        return note(
            "No samples here: the teacher is a module of your own; name a function that returns it, by --teacher "
            "module.py:function."
        )
    return samples_and_path(run, teacher)
