"""What of a student a stock pipeline can hold: its call, its several calls, or nothing, with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bootdiff.core.errors import BootdiffError
from bootdiff.export.schedulers import output_scale, scheduler_for
from bootdiff.export.several import several_steps
from bootdiff.students import Student
from bootdiff.students.pipeline import GrownPipelineNetwork
from bootdiff.teachers.adapters.base import Adapter
from bootdiff.teachers.prediction import Preconditioned

#: the kinds of students whose call a stock pipeline can make
EXPORTED = ("path", "denoising", "jump", "consistency")
#: the factor by which CMStochasticIterativeScheduler's timesteps are EDM's
KARRAS_SCALE = 1000


@dataclass(frozen=True)
class Exported:
    """A student as a stock pipeline holds it.

    Args:
        network: a network of the teacher's class.
        scheduler: the stock scheduler.
        calls: the usual number of steps of the pipeline.
        any_calls: whether it can be asked for other numbers of steps; where not, more than one are refused, or change
            nothing, or are not what the student was made for.
    """

    network: Any
    scheduler: Any
    calls: int = 1
    any_calls: bool = False


@dataclass(frozen=True)
class Refused:
    """A student that no stock pipeline can hold.

    Args:
        reason: one line that says why, and what to do instead.
    """

    reason: str


def export(student: Student, weight: float | None = None) -> Exported | Refused:
    """Return a student as a stock pipeline holds it, or why none does.

    A denoising student keeps its time and takes any number of steps, as does a consistency student whose boundary is
    that of a stock scheduler. Every other student is folded into one call.

    Args:
        weight: the guidance weight to fold in, for a student that learned a range and whose pipeline has no slot for
            it; the middle of the range if not given.

    Raises:
        BootdiffError: if the weight is none that the student learned.
    """
    here = student.weight(weight)
    reason = refusal(student.kind, student.adapter)
    if student.adapter is None or reason is not None:
        words = f"the student of {student.teacher_name} {NOT_GROWN}; use bootdiff.save_student."
        return Refused(reason or words)
    try:
        # A student that was made for one call is held by a scheduler that refuses more.
        scheduler = None if (student.calls, student.any_calls) == (1, False) else several_steps(student)
        network = None if scheduler is None else several_network(student, scheduler, here)
        if network is not None:
            return Exported(_sized(network, student.adapter), scheduler, student.calls, student.any_calls)
        return Exported(one_step_network(student, weight), one_step_scheduler(student))
    except BootdiffError as error:
        return Refused(f"no stock pipeline holds this student: {error}")


def several_network(student: Student, scheduler: Any, weight: float | None = None) -> Any:
    """Return the student's own network as a stock scheduler of several steps tells it its time.

    It is None where no network of the class can be told that.
    """
    grown = student.network
    if not isinstance(grown, GrownPipelineNetwork):
        return None
    network = grown.settled(None, weight if student.learned.is_range else None)
    prediction = student.reading.prediction
    if isinstance(prediction, Preconditioned):
        told = scheduler.timesteps
        try:
            grown.retime(network, told, told / KARRAS_SCALE)
        except BootdiffError:  # one call can be held all the same
            return None
        if prediction.sign < 0:
            adapter_of_student(student).rescale(network, 1.0, -1.0)
    return network


NOT_GROWN = "was not grown from a diffusers pipeline, so no stock pipeline can hold it"


def refusal(kind: str, adapter: Adapter | None) -> str | None:
    """Return why students of a kind cannot be exported at all, as one line; None where they can.

    A student of no pipeline has no export, and there is nothing to say of it.
    """
    if adapter is None or kind in EXPORTED:
        return None
    return f"no stock scheduler makes the call of a {kind} student; sample it from its run with bootdiff sample."


def one_step_scheduler(student: Student) -> Any:
    """Return the family's scheduler with a single timestep, at t_max, whose one step returns exactly x_0.

    Raises:
        BootdiffError: if no stock scheduler can express the student's call.
    """
    adapter, near = adapter_of_student(student), student.kind != "path"
    return scheduler_for(adapter, student.call, student.limit, student.t_max, near)


def one_step_network(student: Student, weight: float | None = None) -> Any:
    """Return the folded network, scaled to what ``one_step_scheduler`` expects of it."""
    network: Any = student.fold(weight)
    adapter, scales = adapter_of_student(student), (student.call.scale, output_scale(student.call))
    if scales[0] != 1 or abs(scales[1] - 1) > 1e-6:
        adapter.rescale(network, *scales)
    return _sized(network, adapter)


def adapter_of_student(student: Student) -> Adapter:
    """Return the adapter of a student that was grown from a pipeline's network.

    Raises:
        BootdiffError: if the student was grown from something else.
    """
    if student.adapter is None:
        raise BootdiffError(f"the student of {student.teacher_name} {NOT_GROWN}; use bootdiff.save_student.")
    return student.adapter


def _sized(network: Any, adapter: Adapter) -> Any:
    if adapter.parts.size is not None and getattr(network.config, "sample_size", None) is not None:
        network.register_to_config(sample_size=adapter.shape[1])  # what was distilled becomes the default
    return network
