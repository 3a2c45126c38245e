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
from bootdiff.teachers import Clip, DynamicThreshold, Teacher, adapter_of
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
    facts = read_facts(path_folder(Path(str(settings.start))) / FILE)
    _check_kind(settings.start, facts, teacher)
    found = {**_times(settings, facts), **_target_limit(settings, facts)}
    if given:
        return found
    conditions = facts.get("conditions", {})
    return {
        **found,
        **_guidance(settings, guidance_in(facts)),
        **_conditions(settings, conditions),
        **_noise_level(settings, conditions),
    }


def _times(settings: DistillationSettings, facts: Mapping[str, Any]) -> dict[str, float]:
    """The ends of the student's path, which are the run's."""
    for key in ("t_min", "t_max"):
        asked = getattr(settings, key)
        if asked is not None and abs(asked - facts[key]) > 1e-4:
            raise _learned_another(settings, f"{key} = {facts[key]:g}", f"{asked:g}")
    return {key: float(facts[key]) for key in ("t_min", "t_max")}


def _target_limit(settings: DistillationSettings, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that limit the targets as the student's were, unless another limit is asked."""
    if "targets" not in facts or "target_limit" in settings.model_fields_set:
        return {}
    limit = limit_from(facts["targets"])
    if isinstance(limit, DynamicThreshold):
        return {"target_limit": "dynamic", "dynamic_ratio": limit.ratio, "dynamic_maximum": limit.maximum}
    return {"target_limit": "clip" if isinstance(limit, Clip) else "none"}


def _guidance(settings: DistillationSettings, learned: float | tuple[float, float] | None) -> dict[str, Any]:
    """The guidance weight, or the range of weights, that the student learned; nothing where it learned none."""
    asked = tuple(settings.guidance_range) if settings.guidance_range else settings.guidance_scale
    if asked is not None:
        if asked != (1.0 if learned is None else learned):
            guidance = "no guidance" if learned is None else f"guidance {learned}"
            raise _learned_another(settings, guidance, asked, "leave it out, or start from another")
        return {}
    if isinstance(learned, tuple):
        return {"guidance_range": list(learned)}
    return {} if learned is None else {"guidance_scale": learned}


def _conditions(settings: DistillationSettings, remembered: Mapping[str, Any]) -> dict[str, Any]:
    """Labels, and what guidance leads away from, where the settings do not say."""
    return {
        key: remembered[word]
        for word, key in REMEMBERED.items()
        if word in remembered and getattr(settings, key) is None
    }


def _noise_level(settings: DistillationSettings, remembered: Mapping[str, Any]) -> dict[str, int]:
    """That of a super-resolution student's inputs."""
    if "noise_level" not in remembered:
        return {}
    level = int(remembered["noise_level"])
    if "noise_level" in settings.model_fields_set and settings.noise_level != level:
        raise _learned_another(settings, f"noise_level = {level}", settings.noise_level)
    return {"noise_level": level}


def _learned_another(
    settings: DistillationSettings, learned: str, asked: object, cure: str = "leave it out"
) -> BootdiffError:
    return BootdiffError(f"the student in {settings.start} learned {learned}, and {asked} is asked; {cure}.")


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
