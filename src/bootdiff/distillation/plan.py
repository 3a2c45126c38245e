"""The plan of a distillation, for which everything is loaded and checked before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from bootdiff.config.settings import TrainingSettings, make_settings
from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.data.conditions import Conditions
from bootdiff.distillation.conditioning import ConditionPlan, plan_conditions
from bootdiff.distillation.fingerprints import sources_of
from bootdiff.distillation.given_conditions import given_conditions
from bootdiff.distillation.source_plan import SourcePlan, chosen_source, plan_source
from bootdiff.distillation.start import adopted
from bootdiff.export.schedulers import scheduler_for
from bootdiff.losses.distances import make_distance
from bootdiff.methods.registry import load_method
from bootdiff.methods.registry import sources_of as sources_taken
from bootdiff.methods.settings import DistillationSettings
from bootdiff.methods.staged import BootFirst
from bootdiff.storage.runs import STAGE, Run
from bootdiff.students.card import read_card
from bootdiff.students.folder import StudentFolder
from bootdiff.teachers import NetworkTeacher, Teacher, adapter_of, load_teacher
from bootdiff.teachers.probe import check_answers


@dataclass(frozen=True)
class Plan:
    """Everything that a distillation is going to do, before it does anything."""

    teacher: Teacher
    method: str
    settings: DistillationSettings
    output: Path
    asked: ConditionPlan
    source: SourcePlan
    #: the plan of the stage before this one, if there is one
    first: Plan | None = None

    @cached_property
    def config(self) -> dict[str, Any]:
        """Return the content of ``config.yaml``."""
        origin = self.teacher.denoiser.origin
        options = {"teacher_options": origin.options} if origin and origin.options else {}
        words = {"task": "distill", "teacher": self.teacher.name, **options, "method": self.method}
        return {**words, "settings": self.settings.model_dump()}

    @cached_property
    def sources(self) -> dict[str, str]:
        """Return hashes of everything that the run reads; another run is the same one only if its are equal."""
        return sources_of(self.teacher, {**self.asked.digests, **self.source.digests}, self.start)

    @property
    def data_free(self) -> bool:
        """Whether no image of a data set is read by the run, nor was by what it goes on from."""
        before = [] if self.first is None else [self.first.data_free]
        before += [] if self.start is None else [read_card(self.start).data_free]
        before += [] if self.asked.base is None else [self.asked.base.data_free]
        return self.source.data_free and all(before)

    @property
    def start(self) -> Path | None:
        """Return the folder of the saved student that the settings name to go on from; None if they name none.

        A second stage goes on from the first one's student instead.
        """
        named = self.asked.settings.start
        return None if named is None or self.first is not None else StudentFolder.unfolded(named).path

    @property
    def finished(self) -> bool:
        """Whether the run's results are all there."""
        exported = adapter_of(self.teacher) is not None
        parts = ("student-path", "done.json", *(["student/model_index.json"] if exported else []))
        return all((self.output / part).exists() for part in parts)


def plan_distillation(
    teacher: Any,
    output: Path | str,
    settings: TrainingSettings | None = None,
    method: str = "boot",
    conditions: Conditions | None = None,
) -> Plan:
    """Return a plan, after loading and checking everything that can be checked without writing anything.

    Raises:
        BootdiffError: if the teacher cannot be read, the settings do not fit it, or the folder holds another run.
    """
    resolved = _of_method(method, settings)
    if not isinstance(teacher, Teacher):
        teacher = load_teacher(teacher, commit=Run(output).commit(teacher) if isinstance(teacher, str) else None)
    chosen = chosen_source(resolved, method, sources_taken(method))
    if resolved.start is not None:  # first: it asks which settings were given, and changed ones count as given
        resolved = _changed(method, resolved, adopted(resolved, teacher, given=conditions is not None))
    resolved = _changed(method, resolved, chosen)
    source = plan_source(teacher, resolved, given=conditions is not None)
    if conditions is None:
        asked = plan_conditions(teacher, resolved, Run(output), source.captions)
    else:
        asked = given_conditions(teacher, resolved, conditions)
    resolved = _changed(method, resolved, _times(resolved, teacher))
    asked, source = replace(asked, settings=resolved), replace(source, settings=resolved)
    _check(teacher, resolved, asked.example)
    first = None
    if isinstance(resolved, BootFirst):
        first = plan_distillation(teacher, Path(output) / STAGE, resolved.first, "boot", conditions)
    plan = Plan(teacher, method, resolved, Path(output), asked, source, first)
    Run(plan.output).check(plan.config, plan.sources)
    return plan


def _of_method(method: str, settings: TrainingSettings | None) -> DistillationSettings:
    """Return the settings as given, if they are this method's; the method's defaults where none are given."""
    kind = load_method(method)[1]
    settings = settings or kind()
    if not isinstance(settings, kind):
        raise BootdiffError(f"method {method} takes {kind.__name__}, got {type(settings).__name__}.")
    return cast("DistillationSettings", settings)


def _changed(method: str, settings: DistillationSettings, values: Mapping[str, Any]) -> DistillationSettings:
    """Return the method's settings with some values replaced, checked as if they had been given so."""
    return make_settings(load_method(method)[1], settings.model_dump(), values)


def _times(settings: DistillationSettings, teacher: Teacher) -> dict[str, float]:
    """Return both ends of the path, as asked, or else the teacher's.

    A t_max that is asked for moves to the nearest time at which a student can start.
    """
    low, high = teacher.t_range
    return {
        "t_min": low if settings.t_min is None else settings.t_min,
        "t_max": high if settings.t_max is None else teacher.nearest_start(settings.t_max),
    }


def _check(teacher: Teacher, settings: DistillationSettings, example: Condition) -> None:
    """Check what would otherwise fail after the training, or after something was written."""
    denoiser, adapter, t_max = teacher.denoiser, adapter_of(teacher), cast("float", settings.t_max)
    if isinstance(denoiser, NetworkTeacher):
        call = denoiser.one_call(t_max)
        if adapter is not None:
            scheduler_for(adapter, call, teacher.limit, t_max)
    check_answers(teacher, t_max, example)
    settings.check_teacher(teacher)
    make_distance(settings.distance, teacher.shape, settings.lpips_weights)
