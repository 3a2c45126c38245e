"""bootdiff: a pretrained diffusion model's images in one network call, without its training data.

teacher = bootdiff.load_teacher("digits")
student = bootdiff.distill(teacher, "runs/first", bootdiff.BootSettings(steps=500))
images = student.sample(bootdiff.sample_noise(seed=0, start=0, stop=16, shape=teacher.shape))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what editors and type checkers read; the names are those of _PUBLIC
    from bootdiff.core.condition import Condition
    from bootdiff.core.errors import BootdiffError
    from bootdiff.core.randomness import sample_noise
    from bootdiff.data.conditions import Classes
    from bootdiff.distillation.distill import distill
    from bootdiff.evaluation.evaluate import evaluate
    from bootdiff.export.diffusers import export_student
    from bootdiff.methods.boot import BootSettings
    from bootdiff.schedules import EDM, BetaTable, Cosine, Linear, RectifiedFlow, SigmaTime, VarianceExploding
    from bootdiff.students import Student
    from bootdiff.students.files import load_student, save_student
    from bootdiff.teachers import (
        CallableTeacher,
        Clip,
        DynamicThreshold,
        Gaussian,
        Guided,
        Limited,
        Mixture,
        load_teacher,
    )
    from bootdiff.teachers.adapters import register_adapter
    from bootdiff.teachers.adapters.base import Adapter, Clock
    from bootdiff.teachers.prediction import Preconditioned
    from bootdiff.teaching.settings import TeacherSettings
    from bootdiff.teaching.teach import train_teacher

__version__ = "0.1.0"

_PUBLIC = {
    "Adapter": "bootdiff.teachers.adapters.base",
    "Classes": "bootdiff.data.conditions",
    "Clip": "bootdiff.teachers",
    "Clock": "bootdiff.teachers.adapters.base",
    "Condition": "bootdiff.core.condition",
    "DynamicThreshold": "bootdiff.teachers",
    "EDM": "bootdiff.schedules",
    "Limited": "bootdiff.teachers",
    "Preconditioned": "bootdiff.teachers.prediction",
    "SigmaTime": "bootdiff.schedules",
    "BetaTable": "bootdiff.schedules",
    "BootSettings": "bootdiff.methods.boot",
    "BootdiffError": "bootdiff.core.errors",
    "CallableTeacher": "bootdiff.teachers",
    "Cosine": "bootdiff.schedules",
    "Gaussian": "bootdiff.teachers",
    "Guided": "bootdiff.teachers",
    "Linear": "bootdiff.schedules",
    "Mixture": "bootdiff.teachers",
    "RectifiedFlow": "bootdiff.schedules",
    "Student": "bootdiff.students",
    "TeacherSettings": "bootdiff.teaching.settings",
    "VarianceExploding": "bootdiff.schedules",
    "distill": "bootdiff.distillation.distill",
    "evaluate": "bootdiff.evaluation.evaluate",
    "export_student": "bootdiff.export.diffusers",
    "load_student": "bootdiff.students.files",
    "load_teacher": "bootdiff.teachers",
    "register_adapter": "bootdiff.teachers.adapters",
    "sample_noise": "bootdiff.core.randomness",
    "save_student": "bootdiff.students.files",
    "train_teacher": "bootdiff.teaching.teach",
}

__all__ = [
    "EDM",
    "Adapter",
    "BetaTable",
    "BootSettings",
    "BootdiffError",
    "CallableTeacher",
    "Classes",
    "Clip",
    "Clock",
    "Condition",
    "Cosine",
    "DynamicThreshold",
    "Gaussian",
    "Guided",
    "Limited",
    "Linear",
    "Mixture",
    "Preconditioned",
    "RectifiedFlow",
    "SigmaTime",
    "Student",
    "TeacherSettings",
    "VarianceExploding",
    "distill",
    "evaluate",
    "export_student",
    "load_student",
    "load_teacher",
    "register_adapter",
    "sample_noise",
    "save_student",
    "train_teacher",
]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first used: torch and diffusers take seconds."""
        if name not in _PUBLIC:
            raise AttributeError(f"module 'bootdiff' has no attribute '{name}'")
        return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
