"""A student on disk: ``student-path`` (unfolded, answers for every t) and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bootdiff.errors import BootdiffError
from bootdiff.files import load_tensors, read_json, save_tensors, write_json, write_whole
from bootdiff.student import Student
from bootdiff.teachers import Teacher
from bootdiff.teachers.base import Origin
from bootdiff.teachers.limits import limit_from
from bootdiff.teachers.weights import load_network

FILE = "bootdiff.json"
WEIGHTS = "student.safetensors"


def student_facts(student: Student) -> dict[str, Any]:
    """What a student says of itself in ``bootdiff.json``."""
    options = {"teacher_options": student.origin.options} if student.origin and student.origin.options else {}
    targets = {} if student.target_limit == student.limit else {"targets": student.target_limit.scheduler_fields()}
    return {"teacher": student.teacher_name, **options, **targets, "t_min": student.t_min, "t_max": student.t_max}


def save_student(student: Student, folder: Path, scheduler_config: dict | None) -> None:
    """Write the unfolded student: the grown network, the teacher's scheduler, and the student's times.

    A student of a plain ``nn.Module`` is written as one safetensors file, to be read with its teacher at hand.
    """

    def write(temporary: Path) -> None:
        temporary.mkdir()
        network: Any = student.network.network if hasattr(student.network, "network") else None
        if scheduler_config is not None and hasattr(network, "save_pretrained"):
            network.save_pretrained(temporary / "unet", safe_serialization=True)
            (temporary / "scheduler").mkdir()
            write_json(temporary / "scheduler" / "scheduler_config.json", scheduler_config)
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
    words = read_facts(folder / FILE)
    times = words["t_min"], words["t_max"]
    if (folder / "unet").is_dir():
        student = _load_unet(folder, str(words["teacher"]), words.get("teacher_options", {}), times)
    else:
        student = _load_plain(folder, teacher, times)
    if "targets" in words:
        student.target_limit = limit_from(words["targets"])
    return student.eval()


def read_facts(path: Path) -> dict[str, Any]:
    """``bootdiff.json``, checked.

    Raises:
        BootdiffError: naming what it lacks, or what is of another kind.
    """
    words = read_json(path)
    wanted: dict[str, Any] = {"teacher": str, "t_min": float | int, "t_max": float | int}
    kinds = dict(wanted)
    kinds.update({key: dict for key in ("teacher_options", "targets") if key in words})
    for key, kind in kinds.items():
        if not isinstance(words.get(key), kind) or isinstance(words[key], bool):
            raise BootdiffError(f"{path}: '{key}' is missing or no {kind}; it is damaged, so repeat the run's command.")
    unknown = set(words.get("teacher_options", {})) - {"revision", "variant", "dtype"}
    if unknown:
        raise BootdiffError(f"{path}: teacher_options holds '{unknown.pop()}', which is none; repeat its command.")
    return words


def _load_plain(folder: Path, teacher: Teacher | None, times: tuple[float, float]) -> Student:
    if teacher is None:
        raise BootdiffError(
            f"{folder} holds the student of a plain nn.Module, which bootdiff cannot build; from Python: "
            "bootdiff.load_student(folder, teacher)."
        )
    student = Student.from_teacher(teacher, *times)
    try:
        student.load_state_dict(load_tensors(folder / WEIGHTS))
    except RuntimeError as error:
        line = str(error).splitlines()[0]
        raise BootdiffError(f"the student in {folder} does not fit the teacher {teacher.name} ({line}).") from error
    return student


def _load_unet(folder: Path, name: str, options: dict[str, str], times: tuple[float, float]) -> Student:
    from diffusers import UNet2DModel

    from bootdiff.student.unet2d import GrownUNet2D
    from bootdiff.teachers.scheduler import read_limit, read_scheduler
    from bootdiff.teachers.unet2d import UNet2DTeacher

    network = load_network(UNet2DModel, folder / "unet")
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    schedule, prediction = read_scheduler(scheduler, folder)
    limit = read_limit(scheduler, folder)
    reading = UNet2DTeacher.from_parts(network, schedule, prediction, limit, name, scheduler)
    reading.origin = Origin(name, **options)
    return Student(GrownUNet2D(network), reading, *times, reading.one_call(times[1]))
