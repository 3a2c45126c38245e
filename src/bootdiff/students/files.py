"""Saving and loading a student as the folder ``student-path``: not folded, so that it answers for every t."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bootdiff.core.errors import BootdiffError, one_line, shown
from bootdiff.storage.files import load_tensors, save_tensors, write_json, write_whole
from bootdiff.students import Student
from bootdiff.students.card import FILE, StudentCard, damaged, new_card, read_card, write_card
from bootdiff.students.folder import StudentFolder
from bootdiff.students.kinds import student_kind
from bootdiff.students.parts import BESIDE, StudentParts
from bootdiff.students.pipeline import GrownPipelineNetwork
from bootdiff.system.out_of_memory import let_pass
from bootdiff.teachers import PipelineTeacher, Teacher, adapter_of
from bootdiff.teachers.adapters import adapter_for
from bootdiff.teachers.limits import limit_from
from bootdiff.teachers.loading.weights import check_finite_tensors

WEIGHTS = "student.safetensors"
#: the file with the embeddings of the target time and the guidance weight, beside the pipeline's network
SLOTS = "slots.safetensors"


def card_of(student: Student) -> StudentCard:
    """Return the card of a student.

    Raises:
        BootdiffError: if ``student.conditions`` holds what no card can hold.
    """
    return new_card(
        kind=student.kind,
        facts=dict(student.facts),
        teacher=student.teacher_name,
        pipeline=None if student.adapter is None else student.adapter.parts.pipeline_class,
        teacher_options={} if student.origin is None else student.origin.pinned,
        targets=None if student.target_limit == student.limit else student.target_limit.scheduler_fields(),
        guidance=student.learned.as_json,
        conditions=student.conditions,
        t_min=student.t_min,
        t_max=student.t_max,
        calls=student.calls,
        any_calls=student.any_calls,
        data_free=student.data_free,
        architecture=student.architecture,
        teacher_free=student.teacher_free,
    )


def save_student(student: Student, folder: Path | str) -> None:
    """Write the unfolded student: the grown network, the teacher's scheduler, and the student's times.

    A student of a plain ``nn.Module`` is written as one safetensors file, to be read with its teacher at hand.

    Raises:
        BootdiffError: if it cannot be written, or its conditions are none that a card can hold.
    """
    card = card_of(student)

    def write(temporary: Path) -> None:
        temporary.mkdir()
        grown = student.network
        if isinstance(grown, GrownPipelineNetwork):
            network: Any = grown.network
            network.save_pretrained(temporary / grown.adapter.network_part, safe_serialization=True)
            save_tensors(temporary / SLOTS, grown.slots())
            (temporary / "scheduler").mkdir()
            write_json(temporary / "scheduler" / "scheduler_config.json", grown.adapter.parts.scheduler)
            beside = grown.adapter.parts.beside
            if beside is not None:  # which neither its teacher's folder nor anything else holds
                beside.save_pretrained(temporary / BESIDE, safe_serialization=True)
        else:
            save_tensors(temporary / WEIGHTS, student.state_dict())
        write_card(card, temporary)

    write_whole(Path(folder), write)


def load_student(folder: Path | str, teacher: Teacher | None = None) -> Student:
    """Return the student in a ``student-path`` folder, or in a run's folder.

    Args:
        teacher: the teacher, needed where the student was grown from a plain ``nn.Module`` or an analytic teacher.

    Raises:
        BootdiffError: if the folder holds no student, or its files are damaged or do not fit the teacher.
    """
    path = StudentFolder.unfolded(folder).path
    card = read_card(path)
    student = _load_plain(path, teacher, card) if card.pipeline is None else _load_pipeline(path, card)
    if card.calls > 1 and not student.several:
        raise damaged(path / FILE, f"'calls': a {card.kind} student makes an image in one call, got {card.calls}")
    if card.targets is not None:
        student.target_limit = limit_from(card.targets)
    student.conditions = card.conditions.model_dump(exclude_none=True)
    student.data_free, student.teacher_free = card.data_free, card.teacher_free
    student.calls, student.any_calls = card.calls, card.any_calls and student.several
    if teacher is not None:
        _check_teacher(path, student, teacher)
    return student.eval()


def _check_teacher(path: Path, student: Student, teacher: Teacher) -> None:
    """Refuse a teacher whose samples or conditions are others than the student's."""
    adapter, own = adapter_of(teacher), student.adapter
    takes, learned = ("nothing" if one is None else one.takes for one in (adapter, own))
    if tuple(teacher.shape) != student.shape or (adapter is not None and takes != learned):
        raise BootdiffError(
            f"the student in {path} does not fit the teacher {teacher.name}: its samples have the shape "
            f"{student.shape} and it is conditioned on {learned}, the teacher's {tuple(teacher.shape)} and on {takes}; "
            "take its own teacher."
        )


def _load_pipeline(folder: Path, card: StudentCard) -> Student:
    met = f"the student in {folder} is of the class {shown(card.pipeline)}"
    adapter = adapter_for(str(card.pipeline), met)(StudentParts(folder, card))
    network = adapter.load()
    reading = PipelineTeacher(adapter, network, str(card.teacher))
    reading.origin, reading.architecture = card.origin, card.architecture
    kind = _kind(card, folder)
    grown = GrownPipelineNetwork(network, adapter, guided=card.weight.is_range, timed=kind.timed)
    student = kind.grown(grown, reading, *card.times, card.weight.plain)
    _take_facts(student, card, folder)
    slots = load_tensors(folder / SLOTS)
    check_finite_tensors(slots, folder / SLOTS)
    try:
        grown.load_slots(slots)
    except RuntimeError as error:
        let_pass(error)
        line = one_line(str(error), 200)
        raise BootdiffError(f"{folder / SLOTS} does not fit its network ({line}); repeat the run's command.") from error
    return student


def _kind(card: StudentCard, folder: Path) -> type[Student]:
    """Return the class of a card's kind of student."""
    try:
        return student_kind(card.kind)
    except BootdiffError as error:
        raise damaged(folder / FILE, f"'kind': {error.message.removesuffix('.')}") from error


def _take_facts(student: Student, card: StudentCard, folder: Path) -> None:
    """Let a student take what only its kind remembers from its card."""
    try:
        student.take(card.facts)
    except BootdiffError as error:
        raise damaged(folder / FILE, f"'facts': {error.message.removesuffix('.')}") from error


def _load_plain(folder: Path, teacher: Teacher | None, card: StudentCard) -> Student:
    if teacher is None:
        raise BootdiffError(
            f"{folder} holds the student of a plain nn.Module, which bootdiff cannot build by itself; name a function "
            "that returns its teacher, by --teacher module.py:function, or from Python: load_student(folder, teacher)."
        )
    student = _kind(card, folder).from_teacher(teacher, *card.times, card.weight.plain)
    _take_facts(student, card, folder)
    tensors = load_tensors(folder / WEIGHTS)
    check_finite_tensors(tensors, folder / WEIGHTS)
    try:
        student.load_state_dict(tensors)
    except RuntimeError as error:
        let_pass(error)
        line = one_line(str(error), 200)
        raise BootdiffError(f"the student in {folder} does not fit the teacher {teacher.name} ({line}).") from error
    return student
