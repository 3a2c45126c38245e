"""The kinds of students by the name on their card, one line each; a kind's module is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module

from bootdiff.core.errors import choose
from bootdiff.students.base import Student

#: for each kind's name, its ``module:class``
KINDS = {
    "path": "bootdiff.students.path:PathStudent",
    "denoising": "bootdiff.students.denoising:DenoisingStudent",
    "jump": "bootdiff.students.jump:JumpStudent",
    "consistency": "bootdiff.students.consistency:ConsistencyStudent",
    "trajectory": "bootdiff.students.trajectory:TrajectoryStudent",
}


def student_kind(name: str) -> type[Student]:
    """Return the class of students of this kind.

    Raises:
        BootdiffError: if there is no such kind; the message names the nearest one.
    """
    module, _, kind = KINDS[choose(name, KINDS, "kind of student")].partition(":")
    return getattr(import_module(module), kind)
