"""Teachers: pretrained denoisers, read as predictions of ``x_0``."""

from bootdiff.teachers.analytic import Gaussian, Mixture
from bootdiff.teachers.base import Limited, NetworkTeacher, Teacher, limit_of, limited
from bootdiff.teachers.callable import CallableTeacher
from bootdiff.teachers.guidance import Guided, guided, guided_within
from bootdiff.teachers.limits import Clip, DynamicThreshold, Limit, NoLimit
from bootdiff.teachers.loading.load import load_teacher
from bootdiff.teachers.pipeline import PipelineTeacher, adapter_of, blank_condition

__all__ = [
    "CallableTeacher",
    "Clip",
    "DynamicThreshold",
    "Gaussian",
    "Guided",
    "Limit",
    "Limited",
    "Mixture",
    "NetworkTeacher",
    "NoLimit",
    "PipelineTeacher",
    "Teacher",
    "adapter_of",
    "blank_condition",
    "guided",
    "guided_within",
    "limit_of",
    "limited",
    "load_teacher",
]
