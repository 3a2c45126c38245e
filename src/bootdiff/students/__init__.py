"""Students: networks grown from a teacher's, of several kinds, and folded back into its class."""

from bootdiff.students.base import Student
from bootdiff.students.growth import GrownNetwork, ShiftedNetwork, grow, register_growth
from bootdiff.students.path import PathStudent

__all__ = ["GrownNetwork", "PathStudent", "ShiftedNetwork", "Student", "grow", "register_growth"]
