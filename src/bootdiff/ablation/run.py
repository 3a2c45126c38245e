"""The training and measuring of an ablation's variants, one after the other, in a folder that resumes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bootdiff.ablation.config import Ablation, Evaluation, read_ablation
from bootdiff.ablation.measuring import measure_run
from bootdiff.ablation.pictures import Album
from bootdiff.ablation.results import Line, Outcome, lines, mark_evaluation, read_outcome
from bootdiff.ablation.table import write_tables
from bootdiff.ablation.variants import Design, Job, make_design
from bootdiff.config.settings import TrainingSettings
from bootdiff.core.errors import BootdiffError, NonFiniteLossError, first_line
from bootdiff.distillation.plan import Plan, plan_distillation
from bootdiff.distillation.run import run_plan
from bootdiff.evaluation.processes import several
from bootdiff.evaluation.references import default_features, find_reference, open_features
from bootdiff.system.progress import progress
from bootdiff.teachers import Teacher, load_teacher

#: a function that measures the student of a run, writes its ``evaluation.json`` and returns its content
Measure = Callable[[Path, Evaluation], Mapping[str, Any]]
#: the names of which an ablation's folder holds at least one, if it holds anything
OWN = ("runs", "ablation.json")
#: the largest number of runs that are planned without a progress bar
FEW = 50


@dataclass(frozen=True)
class AblationPlan:
    """Everything that an ablation is going to do, before anything is written.

    Args:
        teacher: the teacher; every run will load it anew.
        resolved: the settings of every run by its folder, as they are once the teacher is known.
        finished: the folders of the runs that are trained already.
    """

    ablation: Ablation
    design: Design
    folder: Path
    teacher: Teacher
    resolved: Mapping[Path, TrainingSettings]
    finished: frozenset[Path]

    @cached_property
    def jobs(self) -> list[Job]:
        """Return every run, in the order in which they are trained."""
        return list(self.design.jobs(self.folder))


def plan_ablation(path: Path, folder: Path) -> AblationPlan:
    """Check the file, and plan every run before the first one is trained.

    Args:
        path: the YAML file.
        folder: the ablation's folder, which must be new or hold an ablation.

    Raises:
        BootdiffError: in one line, if something would otherwise fail only at a later variant.
    """
    if several():
        raise BootdiffError("bootdiff ablate runs in one process; start it without torchrun or accelerate launch.")
    ablation = read_ablation(path)
    check_folder(folder)
    design = make_design(ablation, path)
    teacher = load(ablation)
    check_evaluation(path, ablation.evaluate, teacher)
    resolved: dict[Path, TrainingSettings] = {}
    finished: set[Path] = set()

    def resolve(job: Job) -> TrainingSettings:
        try:
            plan = _plan(job, ablation, teacher)
        except BootdiffError as error:
            raise error.within(f"{path}, {job.variant.label}") from None
        if plan.finished:
            finished.add(job.folder)
        resolved[job.folder] = plan.settings
        bar.advance()
        return plan.settings

    count = len(design.variants) * len(design.seeds)
    with progress("planning", count, show=count > FEW) as bar:
        design = design.merged(resolve, folder)
    return AblationPlan(ablation, design, folder, teacher, resolved, frozenset(finished))


def load(ablation: Ablation) -> Teacher:
    """Return the teacher, loaded with the options of the ablation's file."""
    return load_teacher(ablation.teacher, **ablation.teacher_options.options)


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something other than an ablation.

    Raises:
        BootdiffError: if it does; the message names what it holds.
    """
    if folder.exists() and not folder.is_dir():
        raise BootdiffError(f"{folder} is a file; expected a folder for the ablation, so choose another --output.")
    held = [p.name for p in folder.iterdir() if not p.name.startswith(".")] if folder.exists() else []
    if held and not set(OWN) & set(held):
        raise BootdiffError(f"{folder} exists and is no ablation (it holds {held[0]}); choose another --output.")


def check_evaluation(path: Path, asked: Evaluation, teacher: Teacher) -> None:
    """Refuse features that do not take this teacher's images, before anything is trained."""
    try:
        features, _ = default_features(teacher, asked.features, asked.reference)
        open_features(features, teacher)
    except BootdiffError as error:
        raise BootdiffError(f"{path}, evaluate: {error}") from None


def _plan(job: Job, ablation: Ablation, teacher: Teacher) -> Plan:
    return plan_distillation(teacher, job.folder, job.settings, ablation.method)


@dataclass
class Runner:
    """Carries out a plan; whatever is finished is left as it is.

    Args:
        measure: the function by which a student is measured.
    """

    plan: AblationPlan
    measure: Measure = measure_run
    #: the reasons why runs could not be measured, by their folders
    unmeasured: dict[Path, str] = field(default_factory=dict)

    def run(self) -> list[Line]:
        """Train and measure every variant, and return the lines of the table.

        Table and pictures are written after each variant.

        Raises:
            Interrupted: after Ctrl-C, once the state is saved; the next call goes on.
        """
        plan = self.plan
        self._find_reference()
        album = Album(plan.folder, plan.design)
        count = len(plan.design.variants)
        for number, job in enumerate(plan.jobs):
            before = self.outcome(job)
            seed = f", seed {job.seed}" if len(plan.design.seeds) > 1 else ""
            done = {"measured": " (done)", "failed": f" ({before.verdict})"}.get(before.state, "")
            print(f"variant {number % count + 1} of {count}: {job.variant.label}{seed}{done}", flush=True)
            if not done:
                self._train(job, before)
                self._measure(job)
                album.draw(self._outcomes(), job.variant.name)
                self._write()
        album.draw(self._outcomes())
        return self._write()

    def outcome(self, job: Job) -> Outcome:
        """Return what is known of a run."""
        outcome = read_outcome(job, self.plan.ablation.evaluate)
        if job.folder in self.unmeasured and outcome.state == "trained":
            return replace(outcome, verdict="not measured", reason=self.unmeasured[job.folder])
        return outcome

    def _train(self, job: Job, before: Outcome) -> None:
        """Train a run; if it diverges, the table says so, and the other runs go on."""
        if before.state == "trained":
            return
        ablation = self.plan.ablation
        plan = _plan(job, ablation, load(ablation))
        if plan.finished:
            return
        try:
            run_plan(plan)
        except NonFiniteLossError as error:
            print(f"bootdiff: note: {error}", file=sys.stderr, flush=True)

    def _measure(self, job: Job) -> None:
        if self.outcome(job).state != "trained":
            return
        asked = self.plan.ablation.evaluate
        try:
            mark_evaluation(job.folder, self.measure(job.folder, asked), asked)
        except BootdiffError as error:
            self.unmeasured[job.folder] = first_line(error)

    def _find_reference(self) -> None:
        """Open the reference, so that a missing one is reported before anything is trained."""
        asked, teacher = self.plan.ablation.evaluate, self.plan.teacher
        name, reference = default_features(teacher, asked.features, asked.reference)
        features = open_features(name, teacher)
        if features is not None:
            find_reference(reference, features)

    def _outcomes(self) -> list[Outcome]:
        return [self.outcome(job) for job in self.plan.jobs]

    def _write(self) -> list[Line]:
        plan = self.plan
        table = lines(plan.design, self._outcomes())
        write_tables(plan.folder, plan.ablation, plan.design, table)
        return table
