"""The export of a student as a stock diffusers pipeline, which works without bootdiff."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bootdiff.core.errors import BootdiffError
from bootdiff.export.card import model_card
from bootdiff.export.exported import Exported, Refused, adapter_of_student, export
from bootdiff.storage.files import read_json, write_json, write_text, write_whole
from bootdiff.students import Student
from bootdiff.students.card import write_card
from bootdiff.students.files import card_of
from bootdiff.system.quiet import quietly


def export_student(student: Student, folder: Path | str, words: Mapping[str, Any], weight: float | None = None) -> None:
    """Write a folder that the family's stock pipeline opens, and that makes an image in the student's calls.

    One step is the default of some pipelines; others must be asked for it, and for more than one.

    Args:
        words: what the model card says beside the student's own facts, such as the method and the settings.
        weight: the guidance weight to fold in, for a student that learned a range and whose pipeline has no slot for
            it; the middle of the range if not given.

    Raises:
        BootdiffError: if no stock pipeline can hold the student, or a part of its pipeline is missing.
    """
    exported = export(student, weight)
    if isinstance(exported, Refused):
        raise BootdiffError(exported.reason)
    write_exported(student, exported, Path(folder), words, weight)


def write_exported(
    student: Student, exported: Exported, folder: Path, words: Mapping[str, Any], weight: float | None = None
) -> None:
    """Write an exported student with its card; ``export_student`` says what the words and the weight are."""
    adapter = adapter_of_student(student)
    with quietly():
        pipeline = adapter.stock(exported.network, exported.scheduler)
    unfolded = card_of(student)
    card = unfolded.model_copy(update={"calls": exported.calls, "any_calls": exported.any_calls})
    if student.learned.is_range and not adapter.weight_slot:
        card = card.model_copy(update={"folded_weight": student.weight(weight)})

    def write(temporary: Path) -> None:
        with quietly():
            pipeline.save_pretrained(temporary, safe_serialization=True)
        for config in (temporary / "model_index.json", *temporary.glob("*/config.json")):
            write_json(config, {key: value for key, value in read_json(config).items() if key != "_name_or_path"})
        write_card(card, temporary)
        write_text(temporary / "README.md", model_card(card, adapter, words, unfolded))

    write_whole(folder, write)
