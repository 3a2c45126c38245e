"""A run that goes on from a saved student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bootdiff.core.errors import BootdiffError
from bootdiff.core.guidance import GuidanceWeight
from bootdiff.methods.settings import DistillationSettings, learned_weight
from bootdiff.students import Student
from bootdiff.students.card import StudentCard
from bootdiff.students.files import load_student
from bootdiff.students.folder import StudentFolder
from bootdiff.system.out_of_memory import let_pass
from bootdiff.teachers import Clip, DynamicThreshold, Limit, Teacher, adapter_of
from bootdiff.teachers.limits import limit_from

#: what a student remembers of its conditions, by the setting that asked for it
REMEMBERED = {"null_class": "null_class", "negative_prompt": "negative_prompt", "labels": "classes"}


def adopted(settings: DistillationSettings, teacher: Teacher, given: bool = False) -> dict[str, Any]:
    """What a run takes over from the student that it starts from, where its settings leave it open.

    Args:
        teacher: whose student it should be.
        given: whether conditions and guidance come from Python, and so not from settings.

    Raises:
        BootdiffError: if there is no student, or it learned something else than what is asked.
    """
    card = StudentFolder.unfolded(str(settings.start)).card
    _check_kind(settings.start, card, teacher)
    found: dict[str, Any] = {}
    for key, learned in zip(("t_min", "t_max"), card.times, strict=True):
        asked = getattr(settings, key)
        if asked is not None and abs(asked - learned) > 1e-4:
            raise BootdiffError(
                f"the student in {settings.start} learned {key} = {learned:g}, and {asked:g} is asked; leave it out."
            )
        found[key] = float(learned)
    if card.targets is not None and "target_limit" not in settings.model_fields_set:
        found.update(_limit_setting(limit_from(card.targets)))
    if given:
        return found
    found.update(_weight(settings, card.weight))
    remembered = card.conditions.model_dump(exclude_none=True)
    for word, key in REMEMBERED.items():
        if word in remembered and getattr(settings, key) is None:
            found[key] = remembered[word]
    level = card.conditions.noise_level
    if level is not None:
        found["noise_level"] = level
        if "noise_level" in settings.model_fields_set and settings.noise_level != level:
            raise BootdiffError(
                f"the student in {settings.start} learned noise_level = {level}, and {settings.noise_level} is asked; "
                "leave it out."
            )
    return found


def _weight(settings: DistillationSettings, learned: GuidanceWeight) -> dict[str, Any]:
    """The guidance that the student learned, where none is asked for."""
    asked = GuidanceWeight.of(settings.guidance_range or settings.guidance_scale)
    if asked.plain is None and learned.plain is None:
        return {}
    if asked.plain is None:
        return {"guidance_range": learned.as_json} if learned.is_range else {"guidance_scale": learned.fixed}
    if asked.plain != (1.0 if learned.plain is None else learned.plain):
        said = "no guidance" if learned.plain is None else f"guidance {learned.plain}"
        raise BootdiffError(
            f"the student in {settings.start} learned {said}, and {asked.plain} is asked; leave it out, or start from "
            "another."
        )
    return {}


def _check_kind(name: str | None, card: StudentCard, teacher: Teacher) -> None:
    adapter = adapter_of(teacher)
    if adapter is None:  # conditions are given from Python, and its weights are compared later
        return
    own, labelled = adapter.parts.pipeline_class, card.conditions.labels is not None
    if (card.pipeline or own) != own or (labelled and adapter.takes != "classes"):
        raise BootdiffError(
            f"the student in {name} is one of {card.teacher}, and {teacher.name} is another kind of teacher; "
            "start from one of its own students."
        )


def _limit_setting(limit: Limit) -> dict[str, Any]:
    """The settings that make this limit of the targets."""
    if isinstance(limit, DynamicThreshold):
        return {"target_limit": "dynamic", "dynamic_ratio": limit.ratio, "dynamic_maximum": limit.maximum}
    return {"target_limit": "clip" if isinstance(limit, Clip) else "none"}


def started_from(folder: Path | str, teacher: Teacher, settings: DistillationSettings) -> Student:
    """The saved student, as one that is grown from this teacher.

    Raises:
        BootdiffError: if it does not fit.
    """
    student = Student.from_teacher(teacher, settings.t_min, settings.t_max, learned_weight(settings, teacher).plain)
    try:
        student.load_state_dict(load_student(folder, teacher).state_dict())
    except RuntimeError as error:
        let_pass(error)
        raise BootdiffError(
            f"the student in {folder} does not fit the teacher {teacher.name} (other weights); "
            "start from one of its own students."
        ) from error
    return student
