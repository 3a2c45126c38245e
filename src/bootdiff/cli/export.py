"""``bootdiff export``."""

from __future__ import annotations

from pathlib import Path

from bootdiff.errors import BootdiffError
from bootdiff.pipelines.export import export_student
from bootdiff.pipelines.student_files import load_student, path_folder
from bootdiff.reading import check_name
from bootdiff.runs import Run


def run_export(student: str, output: Path, weight: float | None) -> None:
    """Write the stock pipeline of an unfolded student, with another guidance weight folded in.

    Raises:
        BootdiffError: if there is no such student, or it did not learn the weight.
    """
    check_name(output)
    if output.exists():
        raise BootdiffError(f"{output} exists; choose a new folder.")
    unfolded = load_student(path_folder(Path(student)))
    unfolded.weight(weight)
    config = Run(student).config if Run(student).started else {}
    words = {"method": config.get("method", "boot"), "settings": config.get("settings", {})}
    export_student(unfolded, output, words, weight)
    print(f"student: {output}  (diffusers: DiffusionPipeline.from_pretrained)")
