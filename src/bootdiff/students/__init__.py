"""Students, ``y_theta(eps, t)``: networks grown from a teacher's and folded back into its class."""

from bootdiff.students.growth import GrownNetwork, ShiftedNetwork, grow, register_growth
from bootdiff.students.student import Student

__all__ = ["GrownNetwork", "ShiftedNetwork", "Student", "grow", "register_growth"]
