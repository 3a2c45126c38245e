"""What a method says of itself: its name, what it learns from, what it trains, and in how many stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from bootdiff.core.errors import BootdiffError
from bootdiff.methods.base import Objective
from bootdiff.methods.settings import DistillationSettings, learned_weight, target_limit
from bootdiff.students.kinds import student_kind
from bootdiff.teachers.loading.architecture import read_architecture

if TYPE_CHECKING:
    from bootdiff.data.sources import Source
    from bootdiff.students import Student
    from bootdiff.teachers import Teacher

C = TypeVar("C", bound=type)
#: the source that a method learns from where it names none
NOISE = ("noise",)
#: the word of a correction for the kind of its student: that of whatever it corrects, which makes images in one call
ANY = "any"


@dataclass(frozen=True)
class Stage:
    """One training of a run, with a folder, looks, a verdict and a kept student of its own.

    Args:
        name: its folder in the run's; empty for the last stage, which is in the run's folder itself.
        method: the name of the method that trains it.
        settings: all of its settings.
        learns_from: makes its teacher from the student of the stage before it; None for the run's own teacher.
        continues: whether it starts from the student of the stage before it, if there is one.
        own_samples: whether what it stores is made by its own teacher; otherwise it is made by the run's teacher, once
            for all such stages of a run.
    """

    name: str
    method: str
    settings: DistillationSettings
    learns_from: Callable[[Any], Teacher] | None = None
    continues: bool = True
    own_samples: bool = True


Stages = Callable[[Any], Sequence[Stage]]


@dataclass(frozen=True)
class Method:
    """A method as it declares itself.

    Args:
        name: the word after ``--method``.
        objective: the class of its objective, with ``from_settings(teacher, settings, source, student)``.
        settings: the class of its settings.
        sources: the words for the sources that it can learn from; the first is taken where none is asked for.
        needs_teacher: whether it asks the teacher; a method that does not takes its architecture and schedule only.
        student: the kind of student that it trains (``students/kinds.py``), or ``"any"`` for a correction.
        stages: the stages of a run, from its settings; None for one stage.
    """

    name: str
    objective: Any
    settings: type[DistillationSettings]
    sources: Sequence[str] = NOISE
    needs_teacher: bool = True
    student: str = "path"
    stages: Stages | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not (isinstance(self.settings, type) and issubclass(self.settings, DistillationSettings)):
            raise BootdiffError(f"the settings of method {self.name} should be a class of DistillationSettings.")

    def stages_of(self, settings: DistillationSettings) -> Sequence[Stage]:
        """Return the stages of a run with these settings, in order; the last one is the run itself."""
        return (Stage("", self.name, settings),) if self.stages is None else self.stages(settings)

    def follows(self, first: Method) -> bool:
        """Whether this method can go on, in one run, from the student of another one."""
        return first.name != self.name and first.student != ANY and self.goes_on_from(first.student)

    def goes_on_from(self, kind: str) -> bool:
        """Whether this method can go on from a student of this kind."""
        return self.student in (ANY, kind) or kind in student_kind(self.student).begins_from

    def new_student(self, teacher: Teacher, settings: DistillationSettings) -> Student:
        """Return a student of this method's kind, grown from the teacher or from what stands in its place."""
        kind, stem = student_kind("path" if self.student == ANY else self.student), self.stem(teacher, settings)
        return kind.from_teacher(stem, settings.t_min, settings.t_max, learned_weight(settings, teacher).plain)

    def stem(self, teacher: Teacher, settings: DistillationSettings) -> Teacher:
        """Return what a new student is grown from: the teacher, or another network in the place of the teacher's.

        Raises:
            BootdiffError: if the settings name a network that cannot take that place.
        """
        from bootdiff.students.architecture import seedling, untaught

        copies = self.needs_teacher or getattr(settings, "start_from", "scratch") == "teacher"
        if settings.student is not None:
            return seedling(teacher, read_architecture(settings.student), settings.seed, copies)
        return teacher if copies else untaught(teacher, settings.seed)

    def build(
        self, teacher: Teacher, settings: DistillationSettings, source: Source, student: Student | None = None
    ) -> Objective:
        """Return the objective of a stage.

        Args:
            teacher: with guidance.
            source: of its batches.
            student: the student that it trains; None grows one from the teacher.
        """
        student = student or self.new_student(teacher, settings)
        student.target_limit = target_limit(settings, teacher)
        objective: Objective = self.objective.from_settings(teacher, settings, source, student)
        return objective


def rounds(
    name: str,
    settings: Any,
    words: Mapping[str, Mapping[str, Any]],
    learns_from: Callable[[Any], Teacher] | None = None,
    continues: bool = True,
    own_samples: bool = True,
) -> list[Stage]:
    """Return the stages of a method that trains in rounds, one after the other.

    Args:
        name: the method's.
        settings: the run's, with the group ``config.mixins.Rounds``.
        words: the rounds by name, in order, each with the settings that say which round it is, such as its number
            of calls. Each name but the last is that of a folder, such as ``rounds/n16``.
        learns_from: makes a round's teacher from the student of the round before it; None for the run's own teacher.
        continues: whether a round starts from that student.
        own_samples: whether a round's stored samples are made by its own teacher, or once by the run's.

    Raises:
        BootdiffError: if the settings are of a round that there is not, or say otherwise which round it is.
    """
    for one, asked in settings.rounds.items():
        if one not in words:
            raise BootdiffError(f"there is no setting or round '{one}'; this run's rounds are {', '.join(words)}.")
        fixed = next((key for key in asked if key in words[one]), None)
        if fixed is not None:
            raise BootdiffError(f"{one}.{fixed}: that is what makes it the round {one}; set {fixed} itself.")
    found = []
    for number, (one, fixed) in enumerate(words.items()):
        folder = f"rounds/{one}" if number < len(words) - 1 else ""
        own = settings.of_round(one).model_copy(update=fixed)
        found.append(Stage(folder, name, own, learns_from if number else None, continues, own_samples))
    return found


def method(
    name: str,
    settings: type[DistillationSettings],
    sources: Sequence[str] = NOISE,
    needs_teacher: bool = True,
    student: str = "path",
    stages: Stages | None = None,
) -> Callable[[C], C]:
    """Return a decorator that declares an objective's class to be a method; ``Method`` says what the words mean."""

    def declare(objective: C) -> C:
        objective.method = Method(name, objective, settings, tuple(sources), needs_teacher, student, stages)  # type: ignore[attr-defined]
        return objective

    return declare
