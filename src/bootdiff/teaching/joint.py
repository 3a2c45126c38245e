"""The student that ``train-teacher --with-student`` trains beside a teacher, and where it is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from bootdiff.config.settings import make_settings
from bootdiff.core.errors import BootdiffError
from bootdiff.distillation.condition_checks import class_labels, null_class
from bootdiff.export.diffusers import export_student
from bootdiff.losses.distances import make_distance
from bootdiff.methods.base import Objective, sampled
from bootdiff.methods.boot import Boot, BootSettings
from bootdiff.methods.denoising import Denoiser, Denoising
from bootdiff.methods.joint import Beside, Both, Shared
from bootdiff.methods.settings import DistillationSettings
from bootdiff.schedules import check_times
from bootdiff.storage.runs import Run
from bootdiff.students import PathStudent
from bootdiff.students.files import save_student
from bootdiff.students.pipeline import GrownPipelineNetwork
from bootdiff.teachers import Teacher, adapter_of, load_teacher
from bootdiff.teaching.settings import TeacherSettings
from bootdiff.teaching.untrained import Untrained

if TYPE_CHECKING:
    from bootdiff.teachers import PipelineTeacher

#: the name of the student's folder inside its teacher's
FOLDER = "one-step"


def check_beside(untrained: Untrained, settings: TeacherSettings, asked: BootSettings, processes: int) -> None:
    """Refuse what would fail in ``with_student``, before anything is written.

    Raises:
        BootdiffError: if something does not fit; the message names the setting.
    """
    reading = untrained.reading()
    make_distance(asked.distance, reading.shape, asked.lpips_weights)
    low, high = _times(reading, asked)
    check_times(low, high)
    reading.one_call(high)
    if settings.with_student == "shared" and untrained.encoder is not None and processes > 1:
        raise BootdiffError("with_student=shared with captions is for one process; use beside, or one process.")


def _times(reading: Teacher, asked: BootSettings) -> tuple[float, float]:
    """Return (t_min, t_max), as asked for, or else the teacher's."""
    low, high = reading.t_range
    return low if asked.t_min is None else asked.t_min, reading.nearest_start(asked.t_max or high)


def with_student(denoising: Denoising, settings: TeacherSettings, asked: BootSettings) -> tuple[PathStudent, Objective]:
    """Return the student of a teacher in training, and the objective that trains both."""
    reading = cast("PipelineTeacher", denoising.reading)
    shared = settings.with_student == "shared"
    low, high = _times(reading, asked)
    if shared:
        grown = GrownPipelineNetwork(reading.network, reading.adapter)
        student = PathStudent.grown(grown, reading, low, high, None)
    else:
        student = PathStudent.from_teacher(reading, low, high)
    boot = Boot.from_settings(reading, asked, None, student)
    boot.student = replace(
        boot.student,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        averages=sampled(settings.ema_decay),
    )
    if not shared:
        return student, Beside(denoising, boot)
    both = replace(boot.student, module=Both(cast("Denoiser", denoising.teacher.module), student))
    return student, Shared(denoising, boot, both)


@torch.no_grad()
def save_beside(student: PathStudent, output: Path, settings: TeacherSettings) -> None:
    """Save the student in ``output/one-step``, as a run would; the teacher's parts are in ``output``."""
    student.cpu()
    learned = load_teacher(str(output))
    own = PathStudent.from_teacher(learned, student.t_min, student.t_max)
    own.load_state_dict(student.state_dict())
    adapter = adapter_of(learned)
    if adapter is not None and adapter.takes == "classes":
        plain = make_settings(DistillationSettings)
        own.conditions = {"labels": class_labels(adapter, plain), "null_class": null_class(adapter, plain)}
    own.data_free = False  # it saw the noises alone, but beside a teacher that learned from images
    save_student(own, Run(output / FOLDER).student_path)
    words = {"method": f"trained with its teacher ({settings.with_student})", "settings": settings.of_its_kind}
    export_student(own, output / FOLDER / "student", words)
