"""A run that goes on from a saved student, whose settings it takes over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bootdiff.core.errors import BootdiffError
from bootdiff.core.guidance import GuidanceWeight
from bootdiff.methods.method import ANY
from bootdiff.methods.registry import find_method
from bootdiff.methods.settings import DistillationSettings, learned_weight
from bootdiff.students import Student
from bootdiff.students.architecture import adapter_with, seedling
from bootdiff.students.card import LearnedConditions, StudentCard
from bootdiff.students.files import load_student
from bootdiff.students.folder import StudentFolder
from bootdiff.students.growth import GrownNetwork, grow
from bootdiff.students.kinds import student_kind
from bootdiff.students.pipeline import GrownPipelineNetwork
from bootdiff.system.out_of_memory import let_pass
from bootdiff.teachers import Clip, DynamicThreshold, NetworkTeacher, Teacher, adapter_of
from bootdiff.teachers.limits import limit_from
from bootdiff.teachers.loading.architecture import Architecture, read_architecture

#: for each fact that a student remembers of its conditions, the setting that asked for it
REMEMBERED = {"null_class": "null_class", "negative_prompt": "negative_prompt", "labels": "classes"}


def adopted(settings: DistillationSettings, teacher: Teacher, given: bool = False) -> dict[str, Any]:
    """Return the settings that a run takes over from the student that it starts from, where its own leave them open.

    Args:
        teacher: the teacher whose student it should be.
        given: whether conditions and guidance come from Python, and not from settings.

    Raises:
        BootdiffError: if there is no student, or it learned something other than what is asked.
    """
    card = StudentFolder.unfolded(str(settings.start)).card
    _check_kind(settings.start, card, teacher)
    found = {**_times(settings, card), **_target_limit(settings, card)}
    if given:
        return found
    return {
        **found,
        **_guidance(settings, card.weight),
        **_conditions(settings, card.conditions),
        **_noise_level(settings, card.conditions.noise_level),
    }


def _times(settings: DistillationSettings, card: StudentCard) -> dict[str, float]:
    """Return the ends of the student's path, t_min and t_max, which become the run's."""
    for key, learned in zip(("t_min", "t_max"), card.times, strict=True):
        asked = getattr(settings, key)
        if asked is not None and abs(asked - learned) > 1e-4:
            cure = f"leave it out, or start from a student with this {key}"  # which the method itself may ask for
            raise _learned_another(settings, f"{key} = {learned:g}", f"{asked:g}", cure)
    return dict(zip(("t_min", "t_max"), map(float, card.times), strict=True))


def _target_limit(settings: DistillationSettings, card: StudentCard) -> dict[str, Any]:
    """Return the settings that limit the targets as the student's were; nothing if another limit is asked."""
    if card.targets is None or "target_limit" in settings.model_fields_set:
        return {}
    limit = limit_from(card.targets)
    if isinstance(limit, DynamicThreshold):
        return {"target_limit": "dynamic", "dynamic_ratio": limit.ratio, "dynamic_maximum": limit.maximum}
    return {"target_limit": "clip" if isinstance(limit, Clip) else "none"}


def _guidance(settings: DistillationSettings, learned: GuidanceWeight) -> dict[str, Any]:
    """Return the guidance weight or range of weights that the student learned; nothing if it learned none."""
    asked = GuidanceWeight.of(settings.guidance_range or settings.guidance_scale).plain
    if asked is not None:
        if asked != (1.0 if learned.plain is None else learned.plain):
            guidance = "no guidance" if learned.plain is None else f"guidance {learned.plain}"
            raise _learned_another(settings, guidance, asked, "leave it out, or start from another")
        return {}
    if learned.is_range:
        return {"guidance_range": learned.as_json}
    return {} if learned.fixed is None else {"guidance_scale": learned.fixed}


def _conditions(settings: DistillationSettings, learned: LearnedConditions) -> dict[str, Any]:
    """Return the labels, and what guidance leads away from, where the settings do not say."""
    remembered = learned.model_dump(exclude_none=True)
    return {
        key: remembered[word]
        for word, key in REMEMBERED.items()
        if word in remembered and getattr(settings, key) is None
    }


def _noise_level(settings: DistillationSettings, level: int | None) -> dict[str, int]:
    """Return the noise level of a super-resolution student's inputs; nothing for other students."""
    if level is None:
        return {}
    if "noise_level" in settings.model_fields_set and settings.noise_level != level:
        raise _learned_another(settings, f"noise_level = {level}", settings.noise_level)
    return {"noise_level": level}


def _learned_another(
    settings: DistillationSettings, learned: str, asked: object, cure: str = "leave it out"
) -> BootdiffError:
    return BootdiffError(f"the student in {settings.start} learned {learned}, and {asked} is asked; {cure}.")


def _check_kind(name: str | None, card: StudentCard, teacher: Teacher) -> None:
    adapter = adapter_of(teacher)
    if adapter is None:  # conditions are given from Python, and its weights are compared later
        return
    own, labelled = adapter.parts.pipeline_class, card.conditions.labels is not None
    if (card.architecture is None and (card.pipeline or own) != own) or (labelled and adapter.takes != "classes"):
        raise BootdiffError(
            f"the student in {name} is one of {card.teacher}, and {teacher.name} is another kind of teacher; "
            "start from one of its own students."
        )


def of_kind(settings: DistillationSettings, method: str) -> dict[str, Any]:
    """Return the settings that follow from the kind of student that a stage trains.

    Raises:
        BootdiffError: if the student that it starts from is of another kind than the method's, or if BOOT's loss is to
            hold on to a path that the student has not.
    """
    kind = find_method(method).student
    if settings.start is not None:
        card = StudentFolder.unfolded(str(settings.start)).card
        if not find_method(method).goes_on_from(card.kind):
            raise BootdiffError(
                f"the student in {settings.start} is a {card.kind} student, and method {method} trains {kind} "
                "students; start from one of those, or leave start out."
            )
        if kind == ANY and card.calls > 1 and not card.any_calls:
            raise BootdiffError(
                f"the student in {settings.start} was made for {card.calls} calls, and method {method} corrects the "
                "image of one call; start from a student of one call."
            )
        kind = card.kind if kind == ANY else kind
    if kind in (ANY, "path") or getattr(settings, "boot_weight", None) is None:
        return {}
    if "boot_weight" in settings.model_fields_set and settings.boot_weight > 0:  # type: ignore[attr-defined]
        raise BootdiffError(f"boot_weight holds on to a path, which a {kind} student has not; set boot_weight=0.")
    return {"boot_weight": 0.0}


def _stem_of(saved: Student, teacher: Teacher, settings: DistillationSettings) -> Teacher:
    """Return what a saved student was grown from: the teacher, or a network of its own architecture in its place.

    Raises:
        BootdiffError: if the settings name another architecture than the student's.
    """
    grown = saved.network
    own_network = settings.student is None and saved.architecture is None
    if own_network or not isinstance(grown, GrownPipelineNetwork):
        return teacher
    own = Architecture.of(grown.network, grown.adapter.parts.where(grown.adapter.network_part))
    if settings.student is not None:
        asked = adapter_with(teacher, read_architecture(settings.student))[1]
        if not asked.describes(grown.network, grown.adapter.weight_slot):
            raise BootdiffError(
                f"the student in {settings.start or 'the stage before'} has another network than the one in "
                f"{settings.student}; leave student out, or start from one of this network."
            )
    return seedling(teacher, own, settings.seed)


def check_turns(student: Student, method: str, teacher: Teacher, settings: DistillationSettings) -> bool:
    """Return whether a method makes another kind of student of the one that it goes on from.

    Raises:
        BootdiffError: if it does, and of this one it cannot.
    """
    kind = find_method(method).student
    if kind in (ANY, student.kind):
        return False
    turns = f"method {method} makes a {kind} student of a {student.kind} student"
    if not isinstance(teacher.denoiser, NetworkTeacher):
        raise BootdiffError(f"{turns}, which takes a teacher with a network; {teacher.name} has none.")
    if adapter_of(teacher) is None and type(grown := grow(teacher.denoiser)).settled is GrownNetwork.settled:
        raise BootdiffError(f"{turns}, and a {type(grown).__name__} has no method settled() by which one begins.")
    if student.learned.is_range or learned_weight(settings, teacher).is_range:
        cure = "set guidance_scale in place of guidance_range, or leave both out" if settings.start is None else (
            "start from a student of one weight"
        )  # fmt: skip
        raise BootdiffError(f"{turns}, which has one guidance weight and no range of them; {cure}.")
    return True


def started_from(folder: Path | str, teacher: Teacher, settings: DistillationSettings, method: str) -> Student:
    """Return the saved student as one that is grown from this teacher, of the kind that the method trains.

    Raises:
        BootdiffError: if its weights do not fit the teacher's network.
    """
    saved = load_student(folder, teacher)
    stem = _stem_of(saved, teacher, settings)
    student = type(saved).from_teacher(stem, settings.t_min, settings.t_max, learned_weight(settings, teacher).plain)
    student.take(saved.facts)
    student.calls, student.any_calls, student.continued = saved.calls, saved.any_calls, True
    try:
        student.load_state_dict(saved.state_dict())
    except RuntimeError as error:
        let_pass(error)
        raise BootdiffError(
            f"the student in {folder} does not fit the teacher {teacher.name} (other weights); "
            "start from one of its own students."
        ) from error
    if not check_turns(student, method, teacher, settings):
        return student
    kind, t_max = student_kind(find_method(method).student), settings.t_max
    return kind.begun_from(student, stem, student.t_max if t_max is None else t_max)
