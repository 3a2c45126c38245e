"""The work of ``bootdiff export``: it writes a student as a stock pipeline."""

from __future__ import annotations

from pathlib import Path

from bootdiff.builtin import check_output_name
from bootdiff.core.errors import BootdiffError
from bootdiff.export.diffusers import export_student
from bootdiff.storage.reading import check_name
from bootdiff.storage.runs import Run
from bootdiff.students.files import load_student
from bootdiff.students.folder import StudentFolder


def run_export(student: str, output: Path, weight: float | None) -> None:
    """Write the stock pipeline of an unfolded student, with another guidance weight folded in.

    Raises:
        BootdiffError: if there is no such student, or it did not learn the weight.
    """
    check_name(output)
    check_output_name(output)
    if output.exists():
        raise BootdiffError(f"{output} exists; choose a new folder.")
    folder = StudentFolder.unfolded(student)
    if folder.card.pipeline is None:
        raise BootdiffError(
            f"{student} is the student of a plain module, which no stock pipeline holds; sample it instead."
        )
    unfolded = load_student(folder.path)
    unfolded.weight(weight)
    adapter = unfolded.adapter
    if weight is not None and unfolded.learned.is_range and adapter is not None and adapter.weight_slot:
        raise BootdiffError(
            f"--guidance-scale: the pipeline of {student} serves every weight that the student learned, so none is "
            "folded in; leave it out."
        )
    config = Run(student).config if Run(student).started else {}
    words = {"method": config.get("method", "boot"), "settings": config.get("settings", {})}
    export_student(unfolded, output, words, weight)
    print(f"student: {output}  (diffusers: DiffusionPipeline.from_pretrained)")
