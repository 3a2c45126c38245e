"""A student, its teacher with the guidance that it learned, and the conditions to compare them on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from bootdiff.config.mixins import NOISE_LEVEL
from bootdiff.config.settings import make_settings
from bootdiff.core.condition import Condition
from bootdiff.core.device import best_device
from bootdiff.core.errors import BootdiffError
from bootdiff.data.conditions import Cascade, Conditions, Unconditional, Upscaler
from bootdiff.distillation.condition_checks import class_labels, null_class
from bootdiff.methods.settings import DistillationSettings
from bootdiff.samplers.base import Sampler, Told
from bootdiff.samplers.choice import ANY, Choice, conditions_for
from bootdiff.samplers.students import open_student
from bootdiff.storage.runs import Run
from bootdiff.system.notes import note
from bootdiff.teachers import Teacher, adapter_of, guided, limited, load_teacher
from bootdiff.teachers.adapters.base import Adapter
from bootdiff.teachers.adapters.upscaling import check_enlarges
from bootdiff.teachers.encoding import PromptEncoder
from bootdiff.teachers.guidance import weight_of
from bootdiff.teachers.limits import limit_from
from bootdiff.teachers.loading.weights import weights_hash


@dataclass(frozen=True)
class Opened:
    """What an evaluation or a report compares.

    Args:
        teacher: with the student's guidance.
        path_of: the same with the limit of the student's targets.
        conditions: of the samples, by number.
        texts: the prompts behind them, if they are prompts.
    """

    sampler: Sampler
    facts: dict[str, Any]
    teacher: Teacher
    path_of: Teacher
    conditions: Conditions
    texts: Sequence[str] | None = None

    @property
    def t_range(self) -> tuple[float, float]:
        """(t_min, t_max) of the path that the student learned."""
        low, high = self.teacher.t_range
        return float(self.facts.get("t_min", low)), float(self.facts.get("t_max", high))


def open_alone(
    name: str, teacher_options: Mapping[str, Any] | None = None, choice: Choice = ANY
) -> tuple[Teacher, Conditions]:
    """A teacher without a student, guided, and what it is sampled on.

    Args:
        name: a builtin, a folder, a single file or a hub id.
        choice: of prompts, classes (all by default) and guidance weight (1 by default).

    Raises:
        BootdiffError: if it cannot be loaded, or needs words that are missing.
    """
    teacher = load_teacher(name, **(teacher_options or {}))
    adapter = adapter_of(teacher)
    facts: dict[str, Any] = {}
    if adapter is None:
        return teacher, Unconditional()
    if adapter.upscales:
        raise BootdiffError(f"{name} enlarges a base stage's images; evaluate a student of it, whose base makes them.")
    if adapter.takes == "classes":
        asked = make_settings(DistillationSettings, {} if choice.classes is None else {"classes": [*choice.classes]})
        facts["conditions"] = {"labels": class_labels(adapter, asked), "null_class": null_class(adapter, asked)}
    if adapter.takes == "prompts" and choice.negative:
        facts["conditions"] = {"negative_prompt": choice.negative}
    facts["guidance"] = choice.weight
    alone = _Alone(adapter)
    return with_guidance(teacher, alone, facts, choice.weight), conditions_for(alone, facts, choice)


@dataclass
class _Alone:
    """A teacher by itself, as something that is told a condition."""

    adapter: Adapter | None

    def told_weight(self, weight: float | None) -> float | None:
        """Where the network has an input for it: the one that is asked for, or its usual one."""
        if self.adapter is None or self.adapter.guidance != "embedded":
            return None
        return self.adapter.usual_weight if weight is None else weight


def open_pair(
    student: str,
    teacher: str | None = None,
    teacher_options: Mapping[str, Any] | None = None,
    choice: Choice = ANY,
) -> Opened:
    """Open a student beside its teacher.

    Args:
        teacher: another one than the student names.
        teacher_options: for ``load_teacher``, over those of the student's own.
        choice: of prompts, classes and weight.

    Raises:
        BootdiffError: if they do not belong together.
    """
    sampler, facts = open_student(student)
    return _beside(student, sampler, facts, _teacher_of(student, facts, teacher, teacher_options), choice)


def teacher_beside(
    student: str, sampler: Sampler, facts: Mapping[str, Any], named: str | None = None, weight: float | None = None
) -> Teacher:
    """The teacher of an opened student, with the guidance that it learned.

    Raises:
        BootdiffError: if it is not there, or another kind's.
    """
    model = _teacher_of(student, facts, named, None)
    _check_belongs(student, sampler, model)
    return with_guidance(model, sampler, facts, weight)


def open_group(students: Sequence[str], teacher: str | None = None, choice: Choice = ANY) -> list[Opened]:
    """Open several students of one teacher, which is loaded once; all are asked for the same.

    Raises:
        BootdiffError: if one is another teacher's, or was distilled with another guidance weight or other classes.
    """
    opened = {name: open_student(name) for name in students}
    first, (sampler, facts) = students[0], opened[students[0]]
    model = _teacher_of(first, facts, teacher, None)
    choice = replace(choice, prompts=_texts(first, sampler, choice), classes=_classes(opened, choice))
    group = {name: _beside(name, sampler, facts, model, choice) for name, (sampler, facts) in opened.items()}
    _check_weights_of(group)
    _check_teachers(group, model, named=teacher is not None)
    return list(group.values())


def _teacher_of(
    student: str, facts: Mapping[str, Any], named: str | None, options: Mapping[str, Any] | None
) -> Teacher:
    """The teacher that is named, or else the student's own, without guidance."""
    name = named or facts.get("teacher")
    if name is None:
        raise BootdiffError(f"{student} does not say who its teacher is; give --teacher.")
    run = Run.around(student)
    # A teacher that has moved is still loaded with its LoRA, size and precision.
    its_own = located(run, facts.get("teacher_options", {}))
    return load_teacher(run.locate(name) if named is None else name, **{**its_own, **(options or {})})


def _beside(student: str, sampler: Sampler, facts: dict[str, Any], model: Teacher, choice: Choice) -> Opened:
    """A student and a teacher without guidance, given the student's."""
    _check_belongs(student, sampler, model)
    conditions = run_conditions(student, sampler, facts, choice)
    model = with_guidance(model, sampler, facts, choice.weight)
    learned = limited(model, limit_from(facts["targets"])) if "targets" in facts else model
    return Opened(sampler, facts, model, learned, conditions, _texts(student, sampler, choice))


def _classes(opened: Mapping[str, tuple[Sampler, dict[str, Any]]], choice: Choice) -> Sequence[int] | None:
    """Those that the students are sampled with: given, or those that they learned, where that is the same for all.

    Raises:
        BootdiffError: if they learned different ones and none are given.
    """
    learned = {name: facts.get("conditions", {}).get("labels") for name, (_, facts) in opened.items()}
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


def _check_weights_of(group: Mapping[str, Opened]) -> None:
    """Refuse students that are measured at different guidance weights."""
    weights = {name: weight_of(opened.teacher) for name, opened in group.items()}
    first = next(iter(weights))
    for name, weight in weights.items():
        if weight != weights[first]:
            raise BootdiffError(
                f"{first} is measured at guidance weight {weights[first]:g} and {name} at {weight:g}; compare students "
                "of one weight (--guidance-scale chooses it where a range was learned)."
            )


def _check_teachers(group: Mapping[str, Opened], teacher: Teacher, named: bool) -> None:
    """Refuse a student whose run says that it learned from other weights, or that names another teacher."""
    own, first = weights_hash(teacher.denoiser), next(iter(group))
    for name, opened in group.items():
        run = Run.around(name)
        known = run.meta.get("sources", {}).get("teacher") if run.started else None
        if known is not None and known.split("-")[0] != own:
            raise BootdiffError(
                f"{name} is a student of another teacher than {teacher.name} (its weights differ); compare students of "
                "one teacher, or give theirs by --teacher."
            )
        theirs, ours = (one.facts.get("teacher") for one in (opened, group[first]))
        if not named and theirs != ours:
            raise BootdiffError(
                f"{name} is a student of another teacher ({theirs}) than {first} ({ours}); if the two are one, give it "
                "by --teacher."
            )


def _check_belongs(student: str, sampler: Sampler, teacher: Teacher) -> None:
    """Refuse a teacher of other samples, or one that must be told what its student was never told."""
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


def _texts(student: str, sampler: Sampler, choice: Choice) -> Sequence[str] | None:
    """The prompts that are sampled: those given, or those that the run was distilled on."""
    if sampler.adapter is None or sampler.adapter.takes != "prompts":
        return None
    return choice.prompts if choice.prompts is not None else Run.around(student).prompts


def located(run: Run, options: Mapping[str, Any]) -> dict[str, Any]:
    """A teacher's options, their files as seen from where the run was started."""
    return {key: run.locate(value) if key in ("lora", "pipeline_config") else value for key, value in options.items()}


def base_teacher(student: str, conditions: Conditions) -> Teacher | None:
    """The teacher of a cascade's base stage, with its guidance; None where it has gone: only some rows need it."""
    run = Run.around(student)
    name = run.config.get("settings", {}).get("base") if run.started else None
    if name is None or not isinstance(conditions, Cascade):
        return None
    base = run.locate(name)
    sampler, facts = open_student(base)
    its_run = Run.around(base)
    try:
        options = located(its_run, facts.get("teacher_options", {}))
        teacher = load_teacher(its_run.locate(str(facts.get("teacher"))), **options)
    except BootdiffError as error:
        note(f"the base stage's teacher cannot be opened, so the rows of both teachers are left out: {error}")
        return None
    return with_guidance(teacher, sampler, facts, None)


def run_conditions(student: str, sampler: Sampler, facts: dict[str, Any], choice: Choice = ANY) -> Conditions:
    """What to sample: the given prompts or classes, or those that the run was distilled on, and its base's images."""
    run = Run.around(student)
    settings = run.config.get("settings", {}) if run.started else {}
    takes = sampler.adapter.takes if sampler.adapter is not None else "nothing"
    if choice.prompts is None and takes == "prompts" and Run(student).started:
        choice = replace(choice, prompts=run.prompts)
    conditions = conditions_for(sampler, facts, choice)
    if settings.get("base"):
        base = run.locate(settings["base"])
        if not Path(base).is_dir():
            raise BootdiffError(
                f"the base stage of {student} was {settings['base']}, which is not there; name both stages: "
                f"bootdiff sample BASE {student} …"
            )
        return cascade(base, sampler, facts, conditions, choice.prompts or ())
    if sampler.adapter is not None and sampler.adapter.upscales:
        raise BootdiffError(f"{student} enlarges a base stage's images; name both: bootdiff sample BASE {student} …")
    return conditions


def cascade(
    base: str, sampler: Sampler, facts: Mapping[str, Any], conditions: Conditions, prompts: Sequence[str]
) -> Conditions:
    """The conditions of a super-resolution student whose small images are made by ``base``.

    Raises:
        BootdiffError: if one of the two is no such stage, or their sizes do not fit.
    """
    stage = check_upscales(sampler, base)
    small, small_facts = open_student(base)
    check_enlarges(stage, small.adapter, small.shape, base)
    level = int(facts.get("conditions", {}).get("noise_level", NOISE_LEVEL))
    own = conditions_for(small, small_facts, Choice(prompts=prompts))
    return Cascade(conditions, _Module(small), own, tuple(small.shape), cast("Upscaler", stage), level)


def check_upscales(sampler: Sampler, base: str) -> Adapter:
    """The adapter of a super-resolution student.

    Raises:
        BootdiffError: if it is none.
    """
    stage = sampler.adapter
    if stage is None or not stage.upscales:
        raise BootdiffError(
            f"the second student makes no larger images of {base}'s: it is no super-resolution stage; name one student."
        )
    return stage


class _Module(torch.nn.Module):
    """A sampler as a module on the accelerator, which is what a cascade asks."""

    def __init__(self, sampler: Sampler) -> None:
        super().__init__()
        self.sampler = sampler
        self.where: torch.nn.Parameter = torch.nn.Parameter(torch.zeros((), device=best_device()), requires_grad=False)

    def forward(self, eps: torch.Tensor, condition: Condition) -> torch.Tensor:
        return self.sampler(eps, condition)


def with_guidance(teacher: Teacher, sampler: Told, facts: Mapping[str, Any], weight: float | None) -> Teacher:
    """The teacher with the guidance that its student learned, at the weight that it is sampled with."""
    learned, adapter = facts.get("guidance"), adapter_of(teacher)
    if adapter is None or adapter.guidance != "free" or learned is None or learned == 1:
        return teacher
    here = facts.get("folded_weight", sampler.told_weight(weight)) if isinstance(learned, list) else learned
    if here == 1:  # one pass says the same
        return teacher
    words = facts.get("conditions", {})
    if adapter.takes == "classes":
        if words.get("null_class") is None:
            raise BootdiffError(
                f"the student of {facts.get('teacher')} learned guidance, but its bootdiff.json names no null_class "
                "among its conditions; repeat the run's command to write it anew."
            )
        return guided(teacher, Condition({"classes": torch.tensor([int(words["null_class"])])}), here)
    null = PromptEncoder(adapter, best_device()).negative(words.get("negative_prompt"))
    return guided(teacher, null, here)
