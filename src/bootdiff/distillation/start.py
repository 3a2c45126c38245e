"""A run that goes on from a saved student."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bootdiff.core.errors import BootdiffError
from bootdiff.methods.settings import DistillationSettings, learned_weight
from bootdiff.students import Student
from bootdiff.students.files import FILE, guidance_in, load_student, path_folder, read_facts
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
    folder = path_folder(Path(str(settings.start)))
    facts = read_facts(folder / FILE)
    _check_kind(settings.start, facts, teacher)
    found: dict[str, Any] = {}
    for key in ("t_min", "t_max"):
        asked = getattr(settings, key)
        if asked is not None and abs(asked - facts[key]) > 1e-4:
            raise BootdiffError(
                f"the student in {settings.start} learned {key} = {facts[key]:g}, and {asked:g} is asked; leave it out."
            )
        found[key] = float(facts[key])
    if "targets" in facts and "target_limit" not in settings.model_fields_set:
        found.update(_limit_setting(limit_from(facts["targets"])))
    if given:
        return found
    learned = guidance_in(facts)
    asked_weight = tuple(settings.guidance_range) if settings.guidance_range else settings.guidance_scale
    if asked_weight is None and learned is not None:
        found.update(guidance_range=list(learned)) if isinstance(learned, tuple) else found.update(
            guidance_scale=learned
        )
    elif asked_weight is not None and asked_weight != (1.0 if learned is None else learned):
        raise BootdiffError(
            f"the student in {settings.start} learned {'no guidance' if learned is None else f'guidance {learned}'}, "
            f"and {asked_weight} is asked; leave it out, or start from another."
        )
    remembered = facts.get("conditions", {})
    for word, key in REMEMBERED.items():
        if word in remembered and getattr(settings, key) is None:
            found[key] = remembered[word]
    if "noise_level" in remembered:
        found["noise_level"] = level = int(remembered["noise_level"])
        if "noise_level" in settings.model_fields_set and settings.noise_level != level:
            raise BootdiffError(
                f"the student in {settings.start} learned noise_level = {level}, and {settings.noise_level} is asked; "
                "leave it out."
            )
    return found


def _check_kind(name: str | None, facts: Mapping[str, Any], teacher: Teacher) -> None:
    adapter = adapter_of(teacher)
    if adapter is None:  # conditions are given from Python, and its weights are compared later
        return
    own, labelled = adapter.parts.pipeline_class, "labels" in facts.get("conditions", {})
    if facts.get("pipeline", own) != own or (labelled and adapter.takes != "classes"):
        raise BootdiffError(
            f"the student in {name} is one of {facts.get('teacher')}, and {teacher.name} is another kind of teacher; "
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
    student = Student.from_teacher(teacher, settings.t_min, settings.t_max, learned_weight(settings, teacher))
    try:
        student.load_state_dict(load_student(folder, teacher).state_dict())
    except RuntimeError as error:
        let_pass(error)
        raise BootdiffError(
            f"the student in {folder} does not fit the teacher {teacher.name} (other weights); "
            "start from one of its own students."
        ) from error
    return student
