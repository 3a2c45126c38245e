"""Checks that students and teachers belong together; every refusal is one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bootdiff.core.errors import BootdiffError, shown
from bootdiff.data.conditions import Conditions
from bootdiff.distillation.fingerprints import teacher_hash
from bootdiff.samplers.base import Sampler
from bootdiff.samplers.choice import Choice
from bootdiff.storage.runs import Run
from bootdiff.students.card import StudentCard
from bootdiff.teachers import Teacher, adapter_of
from bootdiff.teachers.guidance import weight_of
from bootdiff.teachers.loading.weights import weights_hash


@dataclass(frozen=True)
class Opened:
    """A student beside its teacher, as an evaluation or a report compares them.

    Args:
        teacher: the teacher with the student's guidance.
        path_of: the same teacher with the limit of the student's targets.
        conditions: the conditions of the samples, by number.
        texts: the prompts behind the conditions, if they are prompts.
    """

    sampler: Sampler
    card: StudentCard
    teacher: Teacher
    path_of: Teacher
    conditions: Conditions
    texts: Sequence[str] | None = None

    @property
    def t_range(self) -> tuple[float, float]:
        """Return (t_min, t_max) of the path that the student learned."""
        low, high = self.teacher.t_range
        card = self.card
        return low if card.t_min is None else card.t_min, high if card.t_max is None else card.t_max


def classes_of_all(opened: Mapping[str, tuple[Sampler, StudentCard]], choice: Choice) -> Sequence[int] | None:
    """Return the classes that all students are sampled with; None for students without classes.

    They are those that were given, or those that the students learned, if these are the same for all.

    Raises:
        BootdiffError: if they learned different ones and none are given.
    """
    learned = {name: card.conditions.labels for name, (_, card) in opened.items()}
    first = next(iter(learned))
    takes = {name: "nothing" if s.adapter is None else s.adapter.takes for name, (s, _) in opened.items()}
    for name, labels in learned.items():
        if takes[name] != takes[first]:
            raise BootdiffError(
                f"{first} is conditioned on {takes[first]} and {name} on {takes[name]}; compare one teacher's students."
            )
        if not choice.classes and labels != learned[first]:
            raise BootdiffError(f"{first} and {name} learned different classes; say --classes which to compare.")
    return choice.classes or learned[first]


def check_weights(group: Mapping[str, Opened]) -> None:
    """Refuse students that are measured at different guidance weights."""
    weights = {name: weight_of(opened.teacher) for name, opened in group.items()}
    first = next(iter(weights))
    for name, weight in weights.items():
        if weight != weights[first]:
            raise BootdiffError(
                f"{first} is measured at guidance weight {weights[first]:g} and {name} at {weight:g}; compare students "
                "of one weight (--guidance-scale chooses it where a range was learned)."
            )


def check_teachers(group: Mapping[str, Opened], teacher: Teacher, named: bool) -> None:
    """Refuse a student that learned from other weights than this teacher's, or that names another teacher.

    The weights are those that the student's run has noted; ``named`` says that the user gave the teacher.
    """
    own, first = weights_hash(teacher.denoiser), next(iter(group))
    for name, opened in group.items():
        run = Run.around(name)
        known = run.meta.get("sources", {}).get("teacher") if run.started else None
        if known is not None and known.split("-")[0] != own:
            raise BootdiffError(
                f"{name} is a student of another teacher than {teacher.name} (its weights differ); compare students of "
                "one teacher, or give theirs by --teacher."
            )
        theirs, ours = (one.card.teacher for one in (opened, group[first]))
        if not named and theirs != ours:
            raise BootdiffError(
                f"{name} is a student of another teacher ({theirs}) than {first} ({ours}); if the two are one, give it "
                "by --teacher."
            )


def check_taught(student: str, card: StudentCard, teacher: Teacher) -> None:
    """Refuse another teacher than that of a plain module's student, which is built and read by its teacher.

    The student's run has noted what its teacher was: weights, schedule, prediction, shape and limit.
    """
    run = Run.around(student)
    known = run.meta.get("sources", {}).get("teacher") if run.started else None
    if card.pipeline is None and known is not None and known != teacher_hash(teacher):
        raise BootdiffError(
            f"{student} is the student of another teacher than {teacher.name}: its weights, its schedule, its "
            f"prediction or its shape differ; name the function that the run was made with ({shown(card.teacher)})."
        )


def check_belongs(student: str, sampler: Sampler, teacher: Teacher) -> None:
    """Refuse a teacher whose samples or conditions are of another kind than its student's."""
    if tuple(teacher.shape) != tuple(sampler.shape):
        raise BootdiffError(
            f"{student} makes {sampler.shape} and {teacher.name} {teacher.shape}; it is a student of another teacher."
        )
    adapter, own = adapter_of(teacher), sampler.adapter
    takes, learned = (one.takes if one is not None else "nothing" for one in (adapter, own))
    if adapter is not None and takes != learned:
        raise BootdiffError(
            f"{student} is conditioned on {learned} and {teacher.name} on {takes}; it is a student of another teacher."
        )
