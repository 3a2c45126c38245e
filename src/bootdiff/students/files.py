"""A student on disk: ``student-path`` (unfolded, answers for every t) and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bootdiff.core.errors import BootdiffError
from bootdiff.storage.files import load_tensors, read_json, save_tensors, write_json, write_whole
from bootdiff.students import Student
from bootdiff.students.parts import StudentParts
from bootdiff.students.pipeline import GrownPipelineNetwork
from bootdiff.system.out_of_memory import let_pass
from bootdiff.teachers import PipelineTeacher, Teacher
from bootdiff.teachers.adapters import adapter_for
from bootdiff.teachers.base import Origin
from bootdiff.teachers.limits import limit_from
from bootdiff.teachers.loading.weights import check_finite_tensors

FILE = "bootdiff.json"
WEIGHTS = "student.safetensors"
#: the embeddings of the target time and the guidance weight, beside the pipeline's network
SLOTS = "slots.safetensors"


def student_facts(student: Student) -> dict[str, Any]:
    """What a student says of itself in ``bootdiff.json``."""
    facts: dict[str, Any] = {"teacher": student.teacher_name}
    if student.adapter is not None:
        facts["pipeline"] = student.adapter.parts.pipeline_class
    if student.origin and student.origin.pinned:
        facts["teacher_options"] = student.origin.pinned
    if student.target_limit != student.limit:
        facts["targets"] = student.target_limit.scheduler_fields()
    if student.guidance is not None:
        facts["guidance"] = list(student.guidance) if isinstance(student.guidance, tuple) else student.guidance
    if student.conditions:
        facts["conditions"] = dict(student.conditions)
    return {**facts, "t_min": student.t_min, "t_max": student.t_max}


def save_student(student: Student, folder: Path) -> None:
    """Write the unfolded student: the grown network, the teacher's scheduler, and the student's times.

    A student of a plain ``nn.Module`` is written as one safetensors file, to be read with its teacher at hand.
    """

    def write(temporary: Path) -> None:
        temporary.mkdir()
        grown = student.network
        if isinstance(grown, GrownPipelineNetwork):
            network: Any = grown.network
            network.save_pretrained(temporary / grown.adapter.network_part, safe_serialization=True)
            save_tensors(temporary / SLOTS, grown.slots())
            (temporary / "scheduler").mkdir()
            write_json(temporary / "scheduler" / "scheduler_config.json", grown.adapter.parts.scheduler)
        else:
            save_tensors(temporary / WEIGHTS, student.state_dict())
        write_json(temporary / FILE, student_facts(student))

    write_whole(folder, write)


def load_student(folder: Path | str, teacher: Teacher | None = None) -> Student:
    """Read a ``student-path`` folder, or a run's.

    Args:
        teacher: needed where the student was grown from a plain ``nn.Module`` or an analytic teacher.

    Raises:
        BootdiffError: if it is none, or its files are damaged or do not fit the teacher.
    """
    folder = Path(folder)
    folder = folder / "student-path" if (folder / "student-path").is_dir() else folder
    facts = read_facts(folder / FILE)
    student = _load_pipeline(folder, facts) if "pipeline" in facts else _load_plain(folder, teacher, facts)
    if "targets" in facts:
        student.target_limit = limit_from(facts["targets"])
    student.conditions = dict(facts.get("conditions", {}))
    return student.eval()


def read_facts(path: Path) -> dict[str, Any]:
    """``bootdiff.json``, checked.

    Raises:
        BootdiffError: naming what it lacks, or what is of another kind.
    """
    words = read_json(path)
    kinds: dict[str, Any] = {"teacher": str, "t_min": float | int, "t_max": float | int}
    optional = {"teacher_options": dict, "targets": dict, "conditions": dict, "pipeline": str}
    kinds.update({key: kind for key, kind in optional.items() if key in words})
    if "guidance" in words:
        kinds["guidance"] = list if isinstance(words["guidance"], list) else float | int
    for key, kind in kinds.items():
        if not isinstance(words.get(key), kind) or isinstance(words[key], bool):
            raise BootdiffError(f"{path}: '{key}' is missing or no {kind}; it is damaged, so repeat the run's command.")
    unknown = set(words.get("teacher_options", {})) - (set(Origin.__dataclass_fields__) - {"name"})
    if unknown:
        raise BootdiffError(f"{path}: teacher_options holds '{unknown.pop()}', which is none; repeat its command.")
    return words


def guidance_in(facts: dict[str, Any]) -> float | tuple[float, float] | None:
    """What a student learned of the guidance weight, from its facts."""
    known = facts.get("guidance")
    return (float(known[0]), float(known[1])) if isinstance(known, list) else known


def path_folder(folder: Path) -> Path:
    """The unfolded student of a run, or the folder itself if it is one.

    Raises:
        BootdiffError: if there is none.
    """
    for candidate in (folder, folder / "student-path"):
        if (candidate / FILE).exists() and not (candidate / "model_index.json").exists():
            return candidate
    if (folder / "model_index.json").exists() and (folder / FILE).exists():
        raise BootdiffError(
            f"{folder} is an exported student, which answers for the image's time only; name its run instead."
        )
    if (folder / "config.yaml").exists():
        raise BootdiffError(f"the run in {folder} has no student yet; repeat its command to finish it.")
    raise BootdiffError(f"{folder} holds neither a run, an unfolded student (student-path) nor an exported student.")


def _load_pipeline(folder: Path, facts: dict[str, Any]) -> Student:
    adapter = adapter_for(facts["pipeline"], str(folder))(StudentParts(folder, facts))
    network = adapter.load()
    reading = PipelineTeacher(adapter, network, str(facts["teacher"]))
    reading.origin = Origin(str(facts["teacher"]), **facts.get("teacher_options", {}))
    guidance = guidance_in(facts)
    grown = GrownPipelineNetwork(network, adapter, guided=isinstance(guidance, tuple))
    slots = load_tensors(folder / SLOTS)
    check_finite_tensors(slots, folder / SLOTS)
    try:
        grown.load_slots(slots)
    except RuntimeError as error:
        let_pass(error)
        line = str(error).splitlines()[0]
        raise BootdiffError(f"{folder / SLOTS} does not fit its network ({line}); repeat the run's command.") from error
    low, high = facts["t_min"], facts["t_max"]
    return Student(grown, reading, low, high, reading.one_call(high), guidance)


def _load_plain(folder: Path, teacher: Teacher | None, facts: dict[str, Any]) -> Student:
    if teacher is None:
        raise BootdiffError(
            f"{folder} holds the student of a plain nn.Module, which bootdiff cannot build; from Python: "
            "bootdiff.load_student(folder, teacher)."
        )
    student = Student.from_teacher(teacher, facts["t_min"], facts["t_max"], guidance_in(facts))
    tensors = load_tensors(folder / WEIGHTS)
    check_finite_tensors(tensors, folder / WEIGHTS)
    try:
        student.load_state_dict(tensors)
    except RuntimeError as error:
        let_pass(error)
        line = str(error).splitlines()[0]
        raise BootdiffError(f"the student in {folder} does not fit the teacher {teacher.name} ({line}).") from error
    return student
