"""Opening a student, its teacher with the guidance that it learned, and the conditions to compare them on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bootdiff.builtin import BUILTIN_TEACHERS
from bootdiff.config.settings import make_settings
from bootdiff.config.teacher import names_function
from bootdiff.core.errors import BootdiffError
from bootdiff.data.conditions import Conditions, Unconditional
from bootdiff.distillation.condition_checks import class_labels, null_class
from bootdiff.methods.settings import DistillationSettings
from bootdiff.samplers.base import Sampler
from bootdiff.samplers.choice import ANY, Choice, conditions_for
from bootdiff.samplers.students import open_student
from bootdiff.sampling.belonging import (
    Opened,
    check_belongs,
    check_taught,
    check_teachers,
    check_weights,
    classes_of_all,
)
from bootdiff.sampling.cascade import cascade
from bootdiff.sampling.guidance import with_guidance
from bootdiff.storage.runs import Run
from bootdiff.students.card import FILE, LearnedConditions, StudentCard, new_card
from bootdiff.students.folder import StudentFolder
from bootdiff.teachers import Teacher, adapter_of, limited, load_teacher
from bootdiff.teachers.adapters.base import Adapter
from bootdiff.teachers.limits import limit_from


def open_alone(
    name: str | Teacher, teacher_options: Mapping[str, Any] | None = None, choice: Choice = ANY
) -> tuple[Teacher, Conditions]:
    """Open a teacher without a student; return it with guidance, and the conditions that it is sampled on.

    Args:
        name: a builtin teacher, a folder, a single file or a hub id; or the teacher itself.
        choice: the prompts, the classes (all by default) and the guidance weight (1 by default).

    Raises:
        BootdiffError: if it cannot be loaded, or lacks prompts or classes that it needs.
    """
    teacher = load_teacher(name, **(teacher_options or {}))
    adapter = adapter_of(teacher)
    if adapter is None:
        return teacher, Unconditional()
    if adapter.upscales:
        raise BootdiffError(f"{name} enlarges a base stage's images; evaluate a student of it, whose base makes them.")
    if adapter.takes == "classes":
        asked = make_settings(DistillationSettings, {} if choice.classes is None else {"classes": [*choice.classes]})
        known = LearnedConditions(labels=class_labels(adapter, asked), null_class=null_class(adapter, asked))
    else:
        known = LearnedConditions(negative_prompt=choice.negative or None)
    # As if a student had learned what is asked of its teacher.
    card = new_card(guidance=choice.weight, conditions=known)
    alone = _Alone(adapter)
    return with_guidance(teacher, alone, card, choice.weight), conditions_for(alone, card, choice)


@dataclass
class _Alone:
    """A teacher by itself, as something that is told a condition."""

    adapter: Adapter | None

    def told_weight(self, weight: float | None) -> float | None:
        """Return the weight that the network is told: the one asked for, or its usual one.

        It is None if the network has no input for a weight.
        """
        usual = None if self.adapter is None else self.adapter.embedded_weight
        return usual if usual is None or weight is None else weight


def open_pair(
    student: str,
    teacher: str | Teacher | None = None,
    teacher_options: Mapping[str, Any] | None = None,
    choice: Choice = ANY,
) -> Opened:
    """Open a student beside its teacher.

    Args:
        teacher: a teacher, or its name, to use in place of the one that the student names. The student of a plain
            module needs the teacher itself.
        teacher_options: options for ``load_teacher``, which take precedence over the student's own.
        choice: the prompts, classes and guidance weight.

    Raises:
        BootdiffError: if the student and the teacher do not belong together.
    """
    sampler, card = open_taught(student, teacher)
    return _beside(student, sampler, card, _teacher_of(student, card, teacher, teacher_options), choice)


def teacher_beside(
    student: str, sampler: Sampler, card: StudentCard, named: str | Teacher | None = None, weight: float | None = None
) -> Teacher:
    """Return the teacher of an opened student, with the guidance that the student learned.

    Raises:
        BootdiffError: if the teacher cannot be found, or is of another kind.
    """
    model = _teacher_of(student, card, named, None)
    check_belongs(student, sampler, model)
    return with_guidance(model, sampler, card, weight)


def open_group(students: Sequence[str], teacher: str | Teacher | None = None, choice: Choice = ANY) -> list[Opened]:
    """Open several students of one teacher, which is loaded once; all are asked for the same samples.

    Raises:
        BootdiffError: if one belongs to another teacher, or was distilled with another guidance weight or other
            classes.
    """
    opened = {name: open_taught(name, teacher) for name in students}
    first, (sampler, card) = students[0], opened[students[0]]
    model = _teacher_of(first, card, teacher, None)
    choice = replace(choice, prompts=_texts(first, sampler, choice), classes=classes_of_all(opened, choice))
    group = {name: _beside(name, sampler, card, model, choice) for name, (sampler, card) in opened.items()}
    check_weights(group)
    check_teachers(group, model, named=teacher is not None)
    return list(group.values())


def open_taught(student: str, teacher: str | Teacher | None, calls: int | None = None) -> tuple[Sampler, StudentCard]:
    """Open a student, that of a plain module with its teacher; return its sampler and its card.

    Raises:
        BootdiffError: if it cannot be opened, or a plain module's student has another teacher.
    """
    own = itself(teacher)
    if own is not None and Path(student).is_dir():
        check_taught(student, StudentFolder.at(student).card, own)
    return open_student(student, calls, own)


def itself(teacher: str | Teacher | None) -> Teacher | None:
    """Return a teacher that was given as such; None for a name, which says nothing of a plain module."""
    return teacher if isinstance(teacher, Teacher) else None


def _teacher_of(
    student: str, card: StudentCard, named: str | Teacher | None, options: Mapping[str, Any] | None
) -> Teacher:
    """Return the named teacher, or else the student's own, without guidance."""
    if isinstance(named, Teacher):
        return load_teacher(named, **(options or {}))
    name = named or card.teacher
    if name is None:
        raise BootdiffError(f"{student} does not say who its teacher is; give --teacher.")
    run = Run.around(student)
    # A teacher that has moved is still loaded with its LoRA, size and precision.
    its_own = run.locate_all(card.teacher_options)
    try:
        return load_teacher(run.locate(name) if named is None else name, **{**its_own, **(options or {})})
    except BootdiffError as error:
        if named is not None or names_function(name):
            raise
        raise BootdiffError(f"the teacher of {student} cannot be loaded; give it by --teacher. {error}") from error


def _beside(student: str, sampler: Sampler, card: StudentCard, model: Teacher, choice: Choice) -> Opened:
    """Return a student together with a teacher, to which the student's guidance is added."""
    check_belongs(student, sampler, model)
    conditions = run_conditions(student, sampler, card, choice)
    model = with_guidance(model, sampler, card, choice.weight)
    learned = model if card.targets is None else limited(model, limit_from(card.targets))
    return Opened(sampler, card, model, learned, conditions, _texts(student, sampler, choice))


def _texts(student: str, sampler: Sampler, choice: Choice) -> Sequence[str] | None:
    """Return the prompts that are sampled: those given, or those that the run was distilled on.

    It is None for students that take no prompts.
    """
    if sampler.adapter is None or sampler.adapter.takes != "prompts":
        return None
    return choice.prompts if choice.prompts is not None else Run.around(student).prompts


def run_conditions(student: str, sampler: Sampler, card: StudentCard, choice: Choice = ANY) -> Conditions:
    """Return the conditions to sample: the given prompts or classes, or those that the run was distilled on.

    For a super-resolution student they include its base's images.
    """
    run = Run.around(student)
    settings = run.settings
    takes = sampler.adapter.takes if sampler.adapter is not None else "nothing"
    if choice.prompts is None and takes == "prompts" and Run(student).started:
        choice = replace(choice, prompts=run.prompts)
    conditions = conditions_for(sampler, card, choice)
    if settings.get("base"):
        base = run.locate(settings["base"])
        if not Path(base).is_dir():
            raise BootdiffError(
                f"the base stage of {student} was {settings['base']}, which is not there; name both stages: "
                f"bootdiff sample BASE {student} …"
            )
        return cascade(base, sampler, card, conditions, choice.prompts or ())
    if sampler.adapter is not None and sampler.adapter.upscales:
        raise BootdiffError(f"{student} enlarges a base stage's images; name both: bootdiff sample BASE {student} …")
    return conditions


def is_teacher(name: str) -> bool:
    """Return whether a name is a teacher's: a builtin, a single file, a hub id, or a pipeline that is no student."""
    folder = Path(name)
    if not folder.exists():
        # owner/model is a hub's; a path below a folder that is here was meant as a path.
        hub = name.count("/") == 1 and name[0] not in "./~" and not folder.parent.is_dir()
        return name in BUILTIN_TEACHERS or hub
    if folder.is_file():
        return True
    return (folder / "model_index.json").is_file() and not (folder / FILE).is_file()
