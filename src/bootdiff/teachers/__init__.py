"""Teachers: pretrained denoisers, read as predictions of ``x_0``."""

from bootdiff.teachers.analytic import Gaussian, Mixture
from bootdiff.teachers.base import Limited, NetworkTeacher, Teacher, limited
from bootdiff.teachers.callable import CallableTeacher
from bootdiff.teachers.limits import Clip, DynamicThreshold, Limit, NoLimit
from bootdiff.teachers.load import load_teacher

__all__ = [
    "CallableTeacher",
    "Clip",
    "DynamicThreshold",
    "Gaussian",
    "Limit",
    "Limited",
    "Mixture",
    "NetworkTeacher",
    "NoLimit",
    "Teacher",
    "limited",
    "load_teacher",
]
