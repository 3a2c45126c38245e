"""The samplers of a student by the number of its calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bootdiff.core.errors import BootdiffError
from bootdiff.samplers.base import Sampler
from bootdiff.samplers.consistency import MultistepConsistency, consistency_times, most_calls
from bootdiff.samplers.few_step import FewStep, steps_of
from bootdiff.samplers.one_call import PathSampler
from bootdiff.samplers.rows import CONSISTENCY, FEW_STEPS, MOST_STEPS, ONE_CALL
from bootdiff.schedules import BetaTable
from bootdiff.students import Student
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


def student_sampler(student: Student, calls: int | None = None) -> Called:
    """Return the sampler of a student that makes an image in so many calls; by default in as many as it usually does.

    Raises:
        BootdiffError: if the student cannot be called so many times.
    """
    calls = student.calls if calls is None else calls
    check_calls(calls)
    if student.several and not student.any_calls and calls != student.calls:
        raise BootdiffError(
            f"--calls {calls}: this {student.kind} student was made for {times_in_words(student.calls)}, and for no "
            "other number; leave --calls out."
        )
    # The one call of a student that stock schedulers call again starts at an entry of their table, as the others do.
    again = student.any_calls and isinstance(student, ConsistencyStudent | DenoisingStudent)
    at_entry = again and isinstance(student.schedule, BetaTable)
    if calls == 1 and not at_entry:
        return Called(ONE_CALL, 1, PathSampler(student))
    if isinstance(student, ConsistencyStudent):
        times = consistency_times(student, calls)
        return Called(ONE_CALL if calls == 1 else CONSISTENCY, calls, MultistepConsistency(student, times))
    if isinstance(student, DenoisingStudent | JumpStudent):
        steps = FewStep(student, steps_of(student, calls))
        return Called(ONE_CALL if calls == 1 else FEW_STEPS, calls, steps)
    raise BootdiffError(
        f"--calls {calls}: a {student.kind} student answers for noise only, so it makes an image in one call; let its "
        f"teacher go on from there with --refine {min(calls - 1, MOST_STEPS)}."
    )


def student_samplers(student: Student, calls: Sequence[int] = CALLS) -> Iterator[Called]:
    """Yield the samplers of a student with these numbers of calls, as far as its times allow them.

    Of a student that was made for one number it yields the only one.
    """
    most = most_calls(student) if isinstance(student, ConsistencyStudent) else None
    for count in calls if student.any_calls else [student.calls]:
        if most is None or count <= most:
            yield student_sampler(student, count)


def looked_at(student: Student) -> Called:
    """Return the sampler by which a student is judged while it learns: with the fewest calls that it makes sense of."""
    return student_sampler(student, 1 if student.any_calls else None)


def times_in_words(calls: int) -> str:
    """Return a number of calls in words, such as "one call"."""
    return "one call" if calls == 1 else f"{calls} calls"


def check_calls(calls: int) -> None:
    """Refuse a number of calls that no sampler can make.

    Raises:
        BootdiffError: if it is none from 1 to 1,000.
    """
    if not isinstance(calls, int) or isinstance(calls, bool) or not 1 <= calls <= MOST_STEPS:
        raise BootdiffError(f"expected calls, a whole number from 1 to {MOST_STEPS}, got {calls!r:.40}.")
