"""A student on disk: ``student-path`` (unfolded, answers for every t) and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bootdiff.errors import BootdiffError
from bootdiff.files import read_json, write_json, write_whole
from bootdiff.student import Student
from bootdiff.teachers.weights import load_network

FILE = "bootdiff.json"


def save_student(student: Student, folder: Path, scheduler_config: dict | None) -> None:
    """Write the unfolded student: the grown network, the teacher's scheduler, and the student's times.

    A student of a plain ``nn.Module`` is written as one safetensors file, to be loaded with ``load_weights``.
    """

    def write(temporary: Path) -> None:
        temporary.mkdir()
        network: Any = student.network.network
        if scheduler_config is not None and hasattr(network, "save_pretrained"):
            network.save_pretrained(temporary / "unet", safe_serialization=True)
            (temporary / "scheduler").mkdir()
            write_json(temporary / "scheduler" / "scheduler_config.json", scheduler_config)
        else:
            from bootdiff.training.checkpoint import save_tensors

            save_tensors(temporary / "student.safetensors", student.state_dict())
        words = {"teacher": student.teacher_name, "t_min": student.t_min, "t_max": student.t_max}
        write_json(temporary / FILE, words)

    write_whole(folder, write)


def load_student(folder: Path) -> Student:
    """Read a ``student-path`` folder.

    Raises:
        BootdiffError: if it is none, or its files are damaged.
    """
    words = read_json(folder / FILE)
    missing = [key for key in ("teacher", "t_min", "t_max") if key not in words]
    if missing:
        raise BootdiffError(f"{folder / FILE} lacks '{missing[0]}'; it is damaged, so repeat the run's command.")
    if not (folder / "unet").is_dir():
        raise BootdiffError(
            f"{folder} holds the student of a plain nn.Module, which bootdiff cannot build; build it in Python with "
            "Student.from_teacher(teacher) and load its student.safetensors."
        )
    from diffusers import UNet2DModel

    from bootdiff.student.unet2d import GrownUNet2D
    from bootdiff.teachers.limits import limit_from_scheduler
    from bootdiff.teachers.scheduler import read_scheduler
    from bootdiff.teachers.unet2d import UNet2DTeacher, image_shape

    network = load_network(UNet2DModel, folder / "unet")
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    schedule, prediction = read_scheduler(scheduler, folder)
    limit = limit_from_scheduler(scheduler)
    shape = image_shape(read_json(folder / "unet" / "config.json"))
    reading = UNet2DTeacher(network, schedule, prediction, shape, str(words["teacher"]), limit)
    return Student(GrownUNet2D(network), reading, float(words["t_min"]), float(words["t_max"])).eval()
