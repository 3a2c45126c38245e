"""The work of ``bootdiff distill``: it plans a distillation, carries it out and makes the report."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bootdiff.cli.functions import named_teacher
from bootdiff.config.settings import make_settings, read_command
from bootdiff.config.teacher import TeacherOptions, names_function
from bootdiff.core.errors import BootdiffError, first_line, show_traceback
from bootdiff.distillation.plan import Plan, plan_distillation
from bootdiff.distillation.run import run_plan
from bootdiff.distillation.source_plan import check_source
from bootdiff.methods.registry import find_method, methods_with
from bootdiff.methods.staged import TwoStages
from bootdiff.monitoring.convergence import verdict_of
from bootdiff.report.build import build_report
from bootdiff.storage.reading import read_config
from bootdiff.storage.runs import Run, read_done
from bootdiff.system.notes import note
from bootdiff.system.processes import word_of_first
from bootdiff.system.progress import is_first_process
from bootdiff.teachers import adapter_of, load_teacher


def run_distill(
    teacher: str,
    output: Path,
    method: str,
    config: Path | None,
    assign: list[str],
    options: Mapping[str, Any],
    report_to: str | None,
    dry_run: bool,
    loaded: TeacherOptions = TeacherOptions(),
) -> None:
    """Plan a distillation, carry it out, and make its report; a dry run only prints the plan."""
    settings_type = find_method(method).settings
    said = read_config(config), read_command(assign, options)
    layers = [_of_noise_alone(method, settings_type, layer) for layer in said]
    first = settings_type.before.settings.model_fields if issubclass(settings_type, TwoStages) else {}
    for key in (key for layer in layers for key in layer):
        if key not in {*settings_type.model_fields, *first} and (methods := methods_with(key)):
            raise BootdiffError(f"method {method} has no setting '{key}'; choose --method {' or '.join(methods)}.")
    settings = make_settings(settings_type, *layers)
    if isinstance(settings, TwoStages) and (told := settings.last_alone({key for layer in layers for key in layer})):
        note(told)
    model = load_teacher(named_teacher(teacher), **loaded.options, commit=Run(output).commit(teacher))
    plan = plan_distillation(model, output, settings, method)
    if dry_run:
        print_plan(plan)
        return
    if word_of_first(plan.finished):
        Run(output).tidy()
        print(f"done: {output} is finished; its student is {output}/{_student(output)}.")
        if not (output / "report.html").exists() and is_first_process():
            print_report(plan)
        return
    run_plan(plan, report_to)
    if is_first_process():
        stock = "  (diffusers: DiffusionPipeline.from_pretrained)" if _student(output) == "student" else ""
        print(f"student: {output}/{_student(output)}{stock}")
        print_verdict(plan)
        print_report(plan)


def _student(output: Path) -> str:
    """Return the name of a finished run's student folder: that of the stock pipeline, if there is one."""
    return "student" if Run(output).student.exists() else "student-path"


def _of_noise_alone(method: str, settings_type: Any, layer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a layer of settings without ``source``, where a method has no choice and is asked for what it takes.

    Raises:
        BootdiffError: if it is asked for another source, or given images; the message names what it takes.
    """
    takes, lacks = find_method(method).sources, {"source", "images"} - settings_type.model_fields.keys()
    if "source" in lacks:
        check_source(method, takes, str(layer.get("source", takes[0])))
    if "images" in lacks and layer.get("images") is not None:
        check_source(method, takes, "images", "--images")
    return {key: value for key, value in layer.items() if key not in lacks}


def print_verdict(plan: Plan) -> None:
    """Print whether a run has converged, and where it ended if that was before its last step."""
    steps = read_done(plan.output)["steps"]
    if steps < plan.trained.steps:
        print(f"stopped: at step {steps} of {plan.trained.steps}, because it has converged (stop_when)")
    verdict = verdict_of(plan.output)
    print(f"verdict: {verdict.word}: {verdict.sentence}")


def print_report(plan: Plan) -> None:
    """Build the report of a finished run; if that fails, say so, because the run is finished all the same."""
    # What a function made, the report cannot load by its name.
    made = adapter_of(plan.teacher) is None or names_function(plan.teacher.name)
    output, own = plan.output, plan.teacher if made else None
    try:
        print(f"report:  {build_report(output, own)}")
    except Exception as error:  # out of memory, a teacher that has moved, …: the student is there
        show_traceback()
        print(
            f"report:  not made ({first_line(error)}); try: bootdiff report {output} --teacher TEACHER", file=sys.stderr
        )


def _print_settings(plan: Plan, whole: Plan) -> None:
    """Print the settings of the run, or those of a stage that are others than the run's."""
    runs = whole.settings.model_dump()
    for key, value in plan.settings.model_dump().items():
        if isinstance(value, dict):  # an earlier stage's, which has lines of its own
            continue
        if plan is whole:
            print(f"  {key}: {value}")
        elif key not in runs or runs[key] != value:
            print(f"  {plan.name}.{key}: {value}")


def print_plan(plan: Plan) -> None:
    """Print the resolved plan, with a line for each setting."""
    from bootdiff.cli.inspect import estimate
    from bootdiff.distillation.memory import describe_memory, memory_need
    from bootdiff.methods.settings import calls_a_target
    from bootdiff.storage.passes import passes_in_words
    from bootdiff.students.architecture import share_of
    from bootdiff.training.planned import planned_passes

    print(f"teacher: {plan.teacher.name}, samples of shape {tuple(plan.teacher.shape)}")
    print(f"method: {plan.method}")
    print(f"output: {plan.output}")
    for stage in (plan, *plan.before):
        _print_settings(stage, plan)
    if plan.before:
        stages = [f"{stage.name} of {stage.trained.steps} updates" for stage in plan.before]
        updates = sum(stage.trained.steps for stage in (*plan.before, plan))
        print(f"stages: {', '.join(stages)}, and a last one of {plan.trained.steps}; {updates} updates in all")
    if plan.asked.prompts is not None:
        print(f"prompts: {plan.asked.describe_prompts()}")
    print(f"source: {plan.source.describe()}")
    settings = plan.settings
    stem = find_method(plan.method).stem(plan.teacher, settings)
    need = memory_need(plan.teacher, settings, plan.asked.bytes_beside(), stem)
    for line in describe_memory(need, settings) if need is not None else ():
        print(line)
    share = 1.0 if settings.student is None else share_of(stem, plan.teacher)
    if settings.student is not None:
        print(f"student: {stem.denoiser.architecture}, a pass of which costs {share:.3g} of the teacher's")
    passes = planned_passes(settings, calls_a_target(settings, plan.teacher), share)
    print(f"passes: {passes_in_words(passes)}")
    a_sample = estimate(plan.teacher, settings.batch_size)["pass_seconds"] / settings.batch_size
    print(f"time: {a_sample * passes['all'] / 60:.2g} minutes on this machine's CPU, roughly")
    for caution in plan.asked.settings.cautions(plan.teacher):
        print(f"note: {caution}")
    print("nothing was written (--dry-run).")
