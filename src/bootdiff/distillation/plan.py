"""The plan of a distillation, for which everything is loaded and checked before anything is written."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bootdiff.config.mixins import PATH_SOLVERS, STORED, StoredPairs
from bootdiff.config.settings import TrainingSettings, make_settings
from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError, shown
from bootdiff.data.conditions import Conditions
from bootdiff.data.sources import Source
from bootdiff.distillation.conditioning import ConditionPlan, plan_conditions
from bootdiff.distillation.fingerprints import sources_of
from bootdiff.distillation.given_conditions import given_conditions
from bootdiff.distillation.source_plan import SourcePlan, chosen_source, given_source, plan_source
from bootdiff.distillation.start import adopted, check_turns, of_kind, started_from
from bootdiff.export.exported import refusal
from bootdiff.export.schedulers import scheduler_for
from bootdiff.losses.distances import make_distance
from bootdiff.methods.method import ANY, Method, Stage
from bootdiff.methods.registry import find_method
from bootdiff.methods.settings import DistillationSettings
from bootdiff.samplers.several import looked_at
from bootdiff.storage.reading import folder_named
from bootdiff.storage.runs import DONE, Run, read_done
from bootdiff.students.architecture import adapter_with
from bootdiff.students.card import read_card
from bootdiff.students.folder import StudentFolder
from bootdiff.students.learning import check_learns
from bootdiff.teachers import NetworkTeacher, Teacher, adapter_of, load_teacher
from bootdiff.teachers.features import TeacherFeatures
from bootdiff.teachers.loading.architecture import read_architecture
from bootdiff.teachers.probe import check_answers
from bootdiff.training.planned import rehearsed, rehearsed_start

if TYPE_CHECKING:
    from bootdiff.students import Student


@dataclass(frozen=True)
class Plan:
    """Everything that a distillation, or one of its stages, is going to do, before it does anything."""

    teacher: Teacher
    method: str
    settings: DistillationSettings
    output: Path
    asked: ConditionPlan
    source: SourcePlan
    #: the plans of the stages before this one, in order
    before: tuple[Plan, ...] = ()
    #: what the stage is to its run; None for a run of one stage
    stage: Stage | None = None

    @cached_property
    def config(self) -> dict[str, Any]:
        """Return the content of ``config.yaml``."""
        origin = self.teacher.denoiser.origin
        options = {"teacher_options": origin.options} if origin and origin.options else {}
        words = {"task": "distill", "teacher": self.teacher.name, **options, "method": self.method}
        folders = [] if self.is_stage else [plan.output.relative_to(self.output).as_posix() for plan in self.before]
        # Of two methods in one run the method's name says which folders there are.
        stages = {"stages": folders} if folders and folders != self.method.split("+")[:-1] else {}
        return {**words, **stages, "settings": self.settings.model_dump()}

    @property
    def is_stage(self) -> bool:
        """Whether this is a stage before the last one, in a folder within the run's."""
        return self.stage is not None and self.stage.name != ""

    @property
    def name(self) -> str:
        """The name of the stage: that of its folder."""
        return self.output.name

    @property
    def own_samples(self) -> bool:
        """Whether what the stage stores is made by its own teacher, and not by the run's for several stages."""
        return self.stage is None or self.stage.own_samples

    @property
    def store(self) -> Path:
        """Return the folder in which the samples lie that the stage stores: its own, or the run's."""
        parts = () if self.stage is None or self.own_samples else Path(self.stage.name).parts
        return self.output.parents[len(parts) - 1] if parts else self.output

    @property
    def trained(self) -> DistillationSettings:
        """The settings by which the stage itself trains; in a run of rounds they are those of one round."""
        return self.settings if self.stage is None else self.stage.settings

    @cached_property
    def sources(self) -> dict[str, str]:
        """Return hashes of everything that the run reads; another run is the same one only if its are equal."""
        named = self.settings.student
        student = {} if named is None else {"student": adapter_with(self.teacher, read_architecture(named))[1].digest}
        return sources_of(self.teacher, {**self.asked.digests, **self.source.digests, **student}, self.start)

    @property
    def data_free(self) -> bool:
        """Whether no image of a data set is read by the run, nor was by what it goes on from."""
        before = [plan.data_free for plan in self.before]
        before += [] if self.start is None else [read_card(self.start).data_free]
        before += [] if self.asked.base is None else [self.asked.base.data_free]
        return self.source.data_free and all(before)

    @property
    def teacher_free(self) -> bool:
        """Whether the teacher's network is asked neither by the run nor by the training of what it goes on from."""
        before = [plan.teacher_free for plan in self.before]
        before += [] if self.start is None else [read_card(self.start).teacher_free]
        return not self.needs_teacher and all(before)

    @property
    def needs_teacher(self) -> bool:
        """Whether this stage's method asks the teacher."""
        return find_method(self.method).needs_teacher

    @property
    def start(self) -> Path | None:
        """Return the folder of the saved student that the settings name to go on from; None if they name none.

        Only a run's first stage does; a later one goes on from the student of the stage before it.
        """
        named = self.asked.settings.start
        return None if named is None or self.before else StudentFolder.unfolded(named).path

    @cached_property
    def started(self) -> Student | None:
        """Load the student that the settings name to go on from, once; None if they name none.

        Raises:
            BootdiffError: if it does not fit the teacher.
        """
        return None if self.start is None else started_from(self.start, self.teacher, self.settings, self.method)

    @property
    def finished(self) -> bool:
        """Whether the run's results are all there."""
        kind, adapter = find_method(self.method).student, adapter_of(self.teacher)
        done = self.output / DONE
        exported = adapter is not None and refusal("path" if kind == ANY else kind, adapter) is None
        # What can only be seen of a trained student, the run's end has noted.
        exported = exported and not (done.is_file() and read_done(self.output).get("not_exported"))
        parts = ("student-path", DONE, *(["student/model_index.json"] if exported else []))
        return all((self.output / part).exists() for part in parts)


def plan_distillation(
    teacher: Any,
    output: Path | str,
    settings: TrainingSettings | None = None,
    method: str = "boot",
    conditions: Conditions | None = None,
    source: Source | None = None,
) -> Plan:
    """Return a plan, after loading and checking everything that can be checked without writing anything.

    Raises:
        BootdiffError: if the teacher cannot be read, the settings do not fit it, or the folder holds another run.
    """
    if not isinstance(method, str):
        raise BootdiffError(f"method= expects a name such as 'boot', got {shown(method)}.")
    resolved, output = _of_method(method, settings), folder_named(output)
    if not isinstance(teacher, Teacher):
        teacher = os.fspath(teacher) if isinstance(teacher, os.PathLike) else teacher
        teacher = load_teacher(teacher, commit=Run(output).commit(teacher) if isinstance(teacher, str) else None)
    whole = _plan_alone(teacher, method, resolved, output, conditions, source)
    *earlier, last = find_method(method).stages_of(whole.settings)
    planned = [_plan_stage(teacher, one, output, conditions, source) for one in earlier]
    # The last round has settings of its own; the second of two methods has the run's.
    own = bool(earlier) and last.method == method
    planned.append(_plan_stage(teacher, last, output, conditions, source) if own else replace(whole, stage=last))
    planned = _shared(planned)
    before: tuple[Plan, ...] = ()
    for one in planned[:-1]:
        before = (*before, replace(one, before=before))
    plan = replace(whole, before=before, stage=planned[-1].stage if before else None, source=planned[-1].source)
    _ = (*before, plan)[0].started  # a student that does not fit must leave nothing behind
    _rehearse((*before, plan))
    for one in (plan, *before):  # the run first: what differs there was asked for
        Run(one.output).check(one.config, one.sources)
    return plan


def _rehearse(plans: Sequence[Plan]) -> None:
    """Build every stage's objective and its student's sampler with a stand-in for the networks.

    So what a method refuses is refused before anything is written, and not when the stage's turn comes.

    Raises:
        BootdiffError: if a method refuses what is asked, or its student could not be sampled.
    """
    first, teacher = plans[0], plans[0].teacher
    student = None if first.start is None else rehearsed_start(read_card(first.start), teacher)
    for plan in plans:
        before = student if plan.stage is None or plan.stage.continues else None
        if before is not None:
            turns = check_turns(before, plan.method, teacher, plan.settings)
            before.continued, before = True, None if turns else before
        student = rehearsed(find_method(plan.method), plan.trained, teacher, before)
        if student is None:
            return
        try:
            looked_at(student)
        except BootdiffError as error:
            raise BootdiffError(
                f"a student from t_max = {student.t_max:g} to t_min = {student.t_min:g} could not be sampled: {error}"
            ) from error


def _plan_alone(
    teacher: Teacher,
    method: str,
    settings: DistillationSettings,
    output: Path,
    conditions: Conditions | None,
    given: Source | None = None,
) -> Plan:
    """Return the plan of one stage, as if there were no other."""
    takes = find_method(method).sources
    resolved, chosen = settings, {**chosen_source(settings, method, takes), **of_kind(settings, method)}
    if resolved.start is not None:  # first: it asks which settings were given, and changed ones count as given
        resolved = _changed(method, resolved, adopted(resolved, teacher, given=conditions is not None))
    resolved = _changed(method, resolved, chosen)
    resolved.check_teacher(teacher)
    if given is None:
        source = plan_source(teacher, resolved, takes[0], given=conditions is not None)
    else:
        source = given_source(given, teacher, method, resolved, takes)
    if conditions is None:
        asked = plan_conditions(teacher, resolved, Run(output), source.captions)
    else:
        asked = given_conditions(teacher, resolved, conditions)
    resolved = _changed(method, resolved, dict(zip(("t_min", "t_max"), resolved.path_ends(teacher), strict=True)))
    asked, source = replace(asked, settings=resolved), replace(source, settings=resolved)
    _check_untaught(find_method(method), resolved, source.kind)
    _check(teacher, resolved, find_method(method), asked.example)
    return Plan(teacher, method, resolved, output, asked, source)


def _plan_stage(
    teacher: Teacher, stage: Stage, output: Path, conditions: Conditions | None, given: Source | None
) -> Plan:
    """Return the plan of a stage of several, without those before it.

    Raises:
        BootdiffError: if it does not fit, or would learn again from a source that was made in Python.
    """
    takes = find_method(stage.method).sources
    own = given if given is not None and getattr(given, "kind", None) in takes else None
    makes_its_own = stage.own_samples and stage.learns_from is not None
    solver = getattr(stage.settings, "pair_solver", None)
    if makes_its_own and solver is not None and solver not in PATH_SOLVERS:
        raise BootdiffError(
            f"{Path(stage.name).name} of {stage.method} learns samples of the student before it, which are made along "
            f"the path that it learned; pair_solver expects {' or '.join(PATH_SOLVERS)} there, got {solver:.40}."
        )
    if own is not None and makes_its_own:
        raise BootdiffError(
            f"method {stage.method} makes the pairs of every round anew, so it cannot learn from source=; leave it out."
        )
    alone = _plan_alone(teacher, stage.method, stage.settings, output / stage.name, conditions, own)
    return replace(alone, stage=replace(stage, settings=alone.settings))


def _shared(plans: list[Plan]) -> list[Plan]:
    """Return the plans of stages with one source for all that share their samples: that of the most samples.

    Raises:
        BootdiffError: if a round asks for other samples than the others do.
    """
    sharing = [plan for plan in plans if not plan.own_samples]
    if not sharing:
        return plans
    most = max(sharing, key=lambda plan: getattr(plan.settings, "stored", 0))
    for plan in sharing:
        for key in StoredPairs.model_fields:
            if key != "pairs" and getattr(plan.settings, key, None) != getattr(most.settings, key, None):
                raise BootdiffError(f"the rounds share their samples, so {key} is one for all; set {key} itself.")
    return [replace(plan, source=plan.source if plan.own_samples else most.source) for plan in plans]


def _check_untaught(method: Method, settings: DistillationSettings, source: str) -> None:
    """Refuse what would ask the teacher, where a method does not.

    Raises:
        BootdiffError: if something would; the message names the setting.
    """
    if method.needs_teacher:
        return
    if source in STORED:
        raise BootdiffError(
            f"method {method.name} asks no teacher, and {source} are what a teacher makes; choose another --source."
        )
    if settings.stop_when == "converged":
        raise BootdiffError(
            f"method {method.name} asks no teacher, so no look can tell that it has converged; leave stop_when out."
        )


def _of_method(method: str, settings: TrainingSettings | None) -> DistillationSettings:
    """Return the settings as given, if they are this method's; the method's defaults where none are given."""
    kind = find_method(method).settings
    settings = settings or kind()
    if not isinstance(settings, kind):
        raise BootdiffError(f"method {method} takes {kind.__name__}, got {type(settings).__name__}.")
    return cast("DistillationSettings", settings)


def _changed(method: str, settings: DistillationSettings, values: Mapping[str, Any]) -> DistillationSettings:
    """Return the method's settings with some values replaced, checked as if they had been given so."""
    return make_settings(find_method(method).settings, settings.model_dump(), values)


def _check(teacher: Teacher, settings: DistillationSettings, method: Method, example: Condition) -> None:
    """Check what would otherwise fail after the training, or after something was written."""
    stem, t_max = method.stem(teacher, settings), cast("float", settings.t_max)
    denoiser, adapter = stem.denoiser, adapter_of(stem)
    if isinstance(denoiser, NetworkTeacher):
        call = denoiser.one_call(t_max)
        if adapter is not None and method.student in ("path", ANY):  # others are of use without an export, too
            scheduler_for(adapter, call, teacher.limit, t_max)
    if method.needs_teacher:
        check_answers(teacher, t_max, example)
    if settings.reads_features and isinstance(denoiser, NetworkTeacher):
        TeacherFeatures.of_any(stem, teacher.t_range[0], example)
    if isinstance(denoiser, NetworkTeacher) and adapter is None:
        check_learns(method.new_student(stem, settings), stem, t_max, example)
    if settings.student is not None:
        stem.name = settings.student  # for the message alone: the run grows its student from another stem
        check_answers(stem, t_max, example)
    make_distance(settings.distance, teacher.shape, settings.lpips_weights)
