"""The export of a student as a stock diffusers pipeline, which works without bootdiff."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bootdiff.core.errors import BootdiffError
from bootdiff.export.card import model_card
from bootdiff.export.schedulers import output_scale, scheduler_for
from bootdiff.storage.files import read_json, write_json, write_text, write_whole
from bootdiff.students import Student
from bootdiff.students.card import write_card
from bootdiff.students.files import card_of
from bootdiff.system.quiet import quietly
from bootdiff.teachers.adapters.base import Adapter


def one_step_scheduler(student: Student) -> Any:
    """Return the family's scheduler with a single timestep, at t_max, whose one step returns exactly x_0.

    Raises:
        BootdiffError: if no stock scheduler can express the student's call.
    """
    return scheduler_for(adapter_of_student(student), student.call, student.limit, student.t_max)


def one_step_network(student: Student, weight: float | None = None) -> Any:
    """Return the folded network, scaled to what ``one_step_scheduler`` expects of it."""
    network: Any = student.fold(weight)
    adapter, scales = adapter_of_student(student), (student.call.scale, output_scale(student.call))
    if scales[0] != 1 or abs(scales[1] - 1) > 1e-6:
        adapter.rescale(network, *scales)
    if adapter.parts.size is not None and getattr(network.config, "sample_size", None) is not None:
        network.register_to_config(sample_size=adapter.shape[1])  # what was distilled becomes the default
    return network


def export_student(student: Student, folder: Path | str, words: Mapping[str, Any], weight: float | None = None) -> None:
    """Write a folder that the family's stock pipeline opens, and that makes an image in one step.

    One step is the default of some pipelines; others must be asked for it.

    Args:
        words: what the model card says beside the student's own facts, such as the method and the settings.
        weight: the guidance weight to fold in, for a student that learned a range and whose pipeline has no slot for
            it; the middle of the range if not given.

    Raises:
        BootdiffError: if the student is that of a plain module, or a part of its pipeline is missing.
    """
    adapter = adapter_of_student(student)
    network, scheduler = one_step_network(student, weight), one_step_scheduler(student)
    with quietly():
        pipeline = adapter.stock(network, scheduler)
    card = card_of(student)
    if student.learned.is_range and not adapter.weight_slot:
        card = card.model_copy(update={"folded_weight": student.weight(weight)})

    def write(temporary: Path) -> None:
        with quietly():
            pipeline.save_pretrained(temporary, safe_serialization=True)
        for config in (temporary / "model_index.json", *temporary.glob("*/config.json")):
            write_json(config, {key: value for key, value in read_json(config).items() if key != "_name_or_path"})
        write_card(card, temporary)
        write_text(temporary / "README.md", model_card(card, adapter, words))

    write_whole(Path(folder), write)


def adapter_of_student(student: Student) -> Adapter:
    """Return the adapter of a student that was grown from a pipeline's network.

    Raises:
        BootdiffError: if the student was grown from something else.
    """
    if student.adapter is None:
        raise BootdiffError(
            f"the student of {student.teacher_name} was not grown from a diffusers pipeline, so no stock pipeline can "
            "hold it; use bootdiff.save_student."
        )
    return student.adapter
