"""How a student that is trained beside its teacher learns: which of BOOT's settings it has of its own."""

from __future__ import annotations

from bootdiff.core.errors import BootdiffError
from bootdiff.methods.boot import BootSettings
from bootdiff.teaching.settings import TeacherSettings

#: the settings of BOOT that a student trained with its teacher has of its own
OF_A_STUDENT = (
    *("t_min", "t_max", "delta", "solver", "loss_weight", "distance", "lpips_weights"),
    *("time_sampling", "boundary_weight", "boundary_every"),
)


def student_settings(settings: TeacherSettings) -> BootSettings | None:
    """Return how the student beside the teacher learns; None if there is no such student.

    Raises:
        BootdiffError: if a setting is none that such a student has, or if there are settings but no student is asked
            for.
    """
    if settings.with_student == "no":
        if settings.student:
            raise BootdiffError("student.… are settings of a student; ask for one with --with-student.")
        return None
    try:
        asked = BootSettings(**settings.student)
    except BootdiffError as error:
        raise BootdiffError(f"student: {error}") from error
    for key in settings.student:
        if key not in OF_A_STUDENT:
            raise BootdiffError(
                f"student.{key}: a student beside its teacher has the teacher's; its own are {', '.join(OF_A_STUDENT)}."
            )
    if settings.with_student == "shared" and settings.gradient_checkpointing:
        raise BootdiffError("with_student=shared and gradient_checkpointing exclude each other; leave one out.")
    return asked
