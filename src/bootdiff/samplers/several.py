"""The samplers of a student by the number of its calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bootdiff.core.errors import BootdiffError
from bootdiff.samplers.base import Sampler
from bootdiff.samplers.consistency import MultistepConsistency, consistency_times
from bootdiff.samplers.few_step import FewStep, steps_of
from bootdiff.samplers.one_call import PathSampler
from bootdiff.samplers.rows import CONSISTENCY, FEW_STEPS, MOST_STEPS, ONE_CALL
from bootdiff.students import PathStudent, Student
from bootdiff.students.consistency import ConsistencyStudent
from bootdiff.students.denoising import DenoisingStudent
from bootdiff.students.jump import JumpStudent

#: the numbers of calls at which a student that can be called several times is measured
CALLS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Called:
    """A student with a number of calls.

    Args:
        sampler: what rows of tables call the sampler.
        calls: the number of calls of the student for one image.
        sample: the sampler itself.
    """

    sampler: str
    calls: int
    sample: Sampler


def student_sampler(student: Student, calls: int = 1) -> Called:
    """Return the sampler of a student that makes an image in so many calls.

    Raises:
        BootdiffError: if the student cannot be called so many times.
    """
    check_calls(calls)
    if calls == 1:
        return Called(ONE_CALL, 1, PathSampler(student))
    if isinstance(student, ConsistencyStudent):
        times = consistency_times(student, calls)
        return Called(CONSISTENCY, calls, MultistepConsistency(student, times))
    if isinstance(student, DenoisingStudent | JumpStudent):
        return Called(FEW_STEPS, calls, FewStep(student, steps_of(student, calls)))
    raise BootdiffError(
        f"--calls {calls}: a {student.kind} student answers for noise only, so it makes an image in one call; let its "
        f"teacher go on from there with --refine {min(calls - 1, MOST_STEPS)}."
    )


def student_samplers(student: Student, calls: Sequence[int] = CALLS) -> Iterator[Called]:
    """Yield the samplers of a student with these numbers of calls; a path student has one call only."""
    for count in calls:
        if count == 1 or not isinstance(student, PathStudent):
            yield student_sampler(student, count)


def check_calls(calls: int) -> None:
    """Refuse a number of calls that no sampler can make.

    Raises:
        BootdiffError: if it is none from 1 to 1,000.
    """
    if not isinstance(calls, int) or isinstance(calls, bool) or not 1 <= calls <= MOST_STEPS:
        raise BootdiffError(f"expected calls, a whole number from 1 to {MOST_STEPS}, got {calls!r:.40}.")
