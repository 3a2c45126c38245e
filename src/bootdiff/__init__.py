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
    from bootdiff.evaluation.compare import compare_students
    from bootdiff.evaluation.evaluate import evaluate, evaluate_student
    from bootdiff.evaluation.measurement import Measurement
    from bootdiff.export.diffusers import export_student
    from bootdiff.methods.boot import BootSettings
    from bootdiff.methods.consistency import ConsistencySettings
    from bootdiff.methods.consistency_training import ConsistencyTrainingSettings
    from bootdiff.methods.corrections.distribution_matching import DistributionMatchingSettings
    from bootdiff.methods.corrections.freeflow import FreeFlowSettings
    from bootdiff.methods.corrections.sid import SidSettings
    from bootdiff.methods.dfno import DfnoSettings
    from bootdiff.methods.direct import DirectSettings
    from bootdiff.methods.drift import DriftSettings
    from bootdiff.methods.lcm import LcmSettings
    from bootdiff.methods.progressive import ProgressiveSettings
    from bootdiff.methods.reflow import ReflowSettings
    from bootdiff.methods.registry import register_method
    from bootdiff.methods.tbcm import TbcmSettings
    from bootdiff.methods.tract import TractSettings
    from bootdiff.metrics.estimate import Estimate
    from bootdiff.metrics.registry import Metric, register_metric
    from bootdiff.report.build import build_comparison, build_report
    from bootdiff.samplers.choice import Choice
    from bootdiff.sampling.finish import Finish
    from bootdiff.sampling.layouts import Interpolation, Swap
    from bootdiff.sampling.sample import Samples, Wanted, draw_samples
    from bootdiff.schedules import EDM, BetaTable, Cosine, Linear, RectifiedFlow, SigmaTime, VarianceExploding
    from bootdiff.students import Student, register_growth
    from bootdiff.students.files import load_student, save_student
    from bootdiff.teachers import (
        CallableTeacher,
        Clip,
        DynamicThreshold,
        Gaussian,
        Guided,
        Limited,
        Mixture,
        Teacher,
        load_teacher,
    )
    from bootdiff.teachers.adapters import register_adapter
    from bootdiff.teachers.adapters.base import Adapter, Clock
    from bootdiff.teachers.prediction import Preconditioned
    from bootdiff.teaching.settings import TeacherSettings
    from bootdiff.teaching.teach import train_teacher

__version__ = "0.1.0"

_PUBLIC = {
    "EDM": "bootdiff.schedules",
    "Adapter": "bootdiff.teachers.adapters.base",
    "BetaTable": "bootdiff.schedules",
    "BootSettings": "bootdiff.methods.boot",
    "BootdiffError": "bootdiff.core.errors",
    "CallableTeacher": "bootdiff.teachers",
    "Choice": "bootdiff.samplers.choice",
    "Classes": "bootdiff.data.conditions",
    "Clip": "bootdiff.teachers",
    "Clock": "bootdiff.teachers.adapters.base",
    "Condition": "bootdiff.core.condition",
    "ConsistencySettings": "bootdiff.methods.consistency",
    "ConsistencyTrainingSettings": "bootdiff.methods.consistency_training",
    "Cosine": "bootdiff.schedules",
    "DfnoSettings": "bootdiff.methods.dfno",
    "DirectSettings": "bootdiff.methods.direct",
    "DistributionMatchingSettings": "bootdiff.methods.corrections.distribution_matching",
    "DriftSettings": "bootdiff.methods.drift",
    "DynamicThreshold": "bootdiff.teachers",
    "Estimate": "bootdiff.metrics.estimate",
    "Finish": "bootdiff.sampling.finish",
    "FreeFlowSettings": "bootdiff.methods.corrections.freeflow",
    "Gaussian": "bootdiff.teachers",
    "Guided": "bootdiff.teachers",
    "Interpolation": "bootdiff.sampling.layouts",
    "LcmSettings": "bootdiff.methods.lcm",
    "Limited": "bootdiff.teachers",
    "Linear": "bootdiff.schedules",
    "Measurement": "bootdiff.evaluation.measurement",
    "Metric": "bootdiff.metrics.registry",
    "Mixture": "bootdiff.teachers",
    "Preconditioned": "bootdiff.teachers.prediction",
    "ProgressiveSettings": "bootdiff.methods.progressive",
    "RectifiedFlow": "bootdiff.schedules",
    "ReflowSettings": "bootdiff.methods.reflow",
    "Samples": "bootdiff.sampling.sample",
    "SidSettings": "bootdiff.methods.corrections.sid",
    "SigmaTime": "bootdiff.schedules",
    "Student": "bootdiff.students",
    "Swap": "bootdiff.sampling.layouts",
    "TbcmSettings": "bootdiff.methods.tbcm",
    "Teacher": "bootdiff.teachers",
    "TeacherSettings": "bootdiff.teaching.settings",
    "TractSettings": "bootdiff.methods.tract",
    "VarianceExploding": "bootdiff.schedules",
    "Wanted": "bootdiff.sampling.sample",
    "build_comparison": "bootdiff.report.build",
    "build_report": "bootdiff.report.build",
    "compare_students": "bootdiff.evaluation.compare",
    "distill": "bootdiff.distillation.distill",
    "draw_samples": "bootdiff.sampling.sample",
    "evaluate": "bootdiff.evaluation.evaluate",
    "evaluate_student": "bootdiff.evaluation.evaluate",
    "export_student": "bootdiff.export.diffusers",
    "load_student": "bootdiff.students.files",
    "load_teacher": "bootdiff.teachers",
    "register_adapter": "bootdiff.teachers.adapters",
    "register_growth": "bootdiff.students",
    "register_method": "bootdiff.methods.registry",
    "register_metric": "bootdiff.metrics.registry",
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
    "Choice",
    "Classes",
    "Clip",
    "Clock",
    "Condition",
    "ConsistencySettings",
    "ConsistencyTrainingSettings",
    "Cosine",
    "DfnoSettings",
    "DirectSettings",
    "DistributionMatchingSettings",
    "DriftSettings",
    "DynamicThreshold",
    "Estimate",
    "Finish",
    "FreeFlowSettings",
    "Gaussian",
    "Guided",
    "Interpolation",
    "LcmSettings",
    "Limited",
    "Linear",
    "Measurement",
    "Metric",
    "Mixture",
    "Preconditioned",
    "ProgressiveSettings",
    "RectifiedFlow",
    "ReflowSettings",
    "Samples",
    "SidSettings",
    "SigmaTime",
    "Student",
    "Swap",
    "TbcmSettings",
    "Teacher",
    "TeacherSettings",
    "TractSettings",
    "VarianceExploding",
    "Wanted",
    "build_comparison",
    "build_report",
    "compare_students",
    "distill",
    "draw_samples",
    "evaluate",
    "evaluate_student",
    "export_student",
    "load_student",
    "load_teacher",
    "register_adapter",
    "register_growth",
    "register_method",
    "register_metric",
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
