"""Distillation from beginning to end: teacher in, run folder and student out."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from bootdiff.config.settings import TrainingSettings, make_settings
from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError, NonFiniteLossError
from bootdiff.core.randomness import sample_noise
from bootdiff.data.conditions import Conditions
from bootdiff.data.pictures import grid, is_picture
from bootdiff.distillation.conditioning import ConditionPlan, conditions_hash, given_conditions, plan_conditions
from bootdiff.distillation.ending import Ended, check_best, divergence, first_pulse, save_results, take_best
from bootdiff.distillation.start import adopted, started_from
from bootdiff.export.schedulers import scheduler_for
from bootdiff.losses.distances import make_distance
from bootdiff.methods.registry import load_method
from bootdiff.methods.settings import DistillationSettings, target_limit
from bootdiff.methods.staged import BootFirst
from bootdiff.monitoring.teacher_features import TeacherFeatures
from bootdiff.monitoring.watch import Watch, WatchPlan
from bootdiff.storage.files import write_whole
from bootdiff.storage.lock import lock
from bootdiff.storage.runs import COMPONENTS, STAGE, Run
from bootdiff.students.files import load_student, path_folder
from bootdiff.system.processes import word_of_first
from bootdiff.system.progress import is_first_process
from bootdiff.teachers import NetworkTeacher, Teacher, adapter_of, limited, load_teacher
from bootdiff.teachers.guidance import guidance_of
from bootdiff.teachers.loading.identity import components_hash
from bootdiff.teachers.loading.weights import tensors_hash, weights_hash
from bootdiff.teachers.probe import check_answers

if TYPE_CHECKING:
    from bootdiff.students import Student

PREVIEWS = 64
#: latents are decoded one at a time, because a decoder needs much memory
LATENT_PREVIEWS = 16


@dataclass(frozen=True)
class Plan:
    """Everything that a distillation is going to do, before it does anything."""

    teacher: Teacher
    method: str
    settings: TrainingSettings
    output: Path
    asked: ConditionPlan
    #: conditions made in Python, in place of those that the settings describe
    conditions: Conditions | None = None
    #: the stage before this one
    first: Plan | None = None

    @cached_property
    def config(self) -> dict[str, Any]:
        """What ``config.yaml`` says."""
        origin = self.teacher.denoiser.origin
        options = {"teacher_options": origin.options} if origin and origin.options else {}
        words = {"task": "distill", "teacher": self.teacher.name, **options, "method": self.method}
        return {**words, "settings": self.settings.model_dump()}

    @cached_property
    def sources(self) -> dict[str, str]:
        """Hashes of all that the run reads: what another run must have in common with it to be the same."""
        given = {} if self.conditions is None else {"conditions": conditions_hash(self.conditions)}
        own = guidance_of(self.teacher)
        guidance = {} if own is None else {"guidance": f"{own.weight}-{tensors_hash(own.null)}"}
        start = {} if self.start is None or self.first is not None else {"start": _student_hash(self.start)}
        adapter = adapter_of(self.teacher)
        components = {} if adapter is None or adapter.alone else {COMPONENTS: components_hash(adapter)}
        return {"teacher": self._teacher_hash, **components, **guidance, **self.asked.digests, **given, **start}

    @property
    def start(self) -> Path | None:
        """The saved student that it goes on from: the first stage's, or one that was named."""
        if self.first is not None:
            return self.first.output
        named = self.asked.settings.start
        return None if named is None else path_folder(Path(named))

    @property
    def _teacher_hash(self) -> str:
        """Of the teacher's weights, and of everything that says what they mean."""
        denoiser = self.teacher.denoiser
        read = getattr(denoiser, "prediction", None)
        prediction = [read.name, *map(str, vars(read).values())] if read is not None else None
        probe = torch.linspace(0.05, 0.95, 7)
        levels = [v.tolist() for v in (*denoiser.schedule.alpha_sigma(probe), denoiser.schedule.timestep(probe))]
        scheduler = getattr(denoiser, "scheduler_config", None)
        words = json.dumps(
            [prediction, self.teacher.shape, repr(self.teacher.limit), levels, scheduler], sort_keys=True
        )
        adapter = adapter_of(self.teacher)
        beside = adapter.parts.digest(adapter.network_part) if adapter is not None else ""
        own = hashlib.blake2b(f"{words}{beside}".encode(), digest_size=4).hexdigest()
        return f"{weights_hash(denoiser)}-{own}"

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
    """Load what has to be loaded and check everything that can be checked without writing anything.

    Raises:
        BootdiffError: if the teacher cannot be read, the settings do not fit it, or the folder holds another run.
    """
    settings_type = load_method(method)[1]
    settings = settings or settings_type()
    if not isinstance(settings, settings_type):
        raise BootdiffError(f"method {method} takes {settings_type.__name__}, got {type(settings).__name__}.")
    if not isinstance(teacher, Teacher):
        teacher = load_teacher(teacher, commit=Run(output).commit(teacher) if isinstance(teacher, str) else None)
    if getattr(settings, "start", None) is not None:
        known = adopted(cast("DistillationSettings", settings), teacher, given=conditions is not None)
        settings = make_settings(settings_type, settings.model_dump(), known)
    if conditions is None:
        asked = plan_conditions(teacher, settings, Run(output))  # first: what is missing is soon told
    else:
        asked = given_conditions(teacher, settings, conditions)
    low, high = teacher.t_range
    times = {key: t for key, t in {"t_min": low, "t_max": high}.items() if key in settings_type.model_fields}
    chosen = {key: getattr(settings, key) for key in times if getattr(settings, key, None) is not None}
    if "t_max" in chosen:
        chosen["t_max"] = teacher.nearest_start(chosen["t_max"])
    resolved = make_settings(settings_type, settings.model_dump(), times, chosen)
    asked = replace(asked, settings=cast("DistillationSettings", resolved))
    _check(teacher, resolved, asked.blank(1) if conditions is None else conditions.listed(0, 0, 1))
    first = None
    if isinstance(resolved, BootFirst):
        first = plan_distillation(teacher, Path(output) / STAGE, resolved.first, "boot", conditions)
    plan = Plan(teacher, method, resolved, Path(output), asked, conditions, first)
    Run(plan.output).check(plan.config, plan.sources)
    return plan


def _check(teacher: Teacher, settings: TrainingSettings, example: Condition) -> None:
    """What would otherwise fail after the training, or after something was written."""
    denoiser, t_max = teacher.denoiser, getattr(settings, "t_max", None)
    if isinstance(denoiser, NetworkTeacher) and t_max is not None:
        call, adapter = denoiser.one_call(t_max), adapter_of(teacher)
        if adapter is not None:
            scheduler_for(adapter, call, teacher.limit, t_max)
    check_answers(teacher, t_max, example)
    if isinstance(settings, DistillationSettings):
        settings.check_teacher(teacher)
        make_distance(settings.distance, teacher.shape, settings.lpips_weights)


def distill(
    teacher: Any,
    output: Path | str,
    settings: TrainingSettings | None = None,
    method: str = "boot",
    report_to: str | None = None,
    conditions: Conditions | None = None,
) -> Student:
    """Distil a teacher into a one-step student; the same call resumes an interrupted run.

    Args:
        teacher: from ``load_teacher`` or ``CallableTeacher``, or a name or a diffusers pipeline for ``load_teacher``.
        output: the run's folder.
        settings: the method's, for instance ``BootSettings(steps=2000, prompts="prompts.txt")``.
        conditions: what a teacher of your own is conditioned on; a pipeline's are described by the settings.

    Returns:
        The student with its averaged weights, also saved as ``output/student`` (stock diffusers) and
        ``output/student-path`` (answers for every t).

    Raises:
        BootdiffError: for bad input, before anything is written; ``Interrupted`` after Ctrl-C.
    """
    plan = plan_distillation(teacher, output, settings, method, conditions)
    if word_of_first(plan.finished):
        Run(plan.output).tidy()
        return load_student(plan.output / "student-path", plan.teacher)
    return run_plan(plan, report_to)


def run_plan(plan: Plan, report_to: str | None = None, made: tuple[Teacher, Conditions] | None = None) -> Student:
    """Carry out a plan, as the only process in the run's folder.

    Args:
        made: the teacher with guidance and the conditions, where an earlier stage has made them.

    Raises:
        BootdiffError: if another process is at work there; ``Interrupted`` after Ctrl-C.
    """
    from bootdiff.training.accelerator import own_state

    with own_state(), lock(plan.output):
        if is_first_process():  # another process may have been there since it was looked at
            Run(plan.output).check(plan.config, plan.sources)
        return _carry_out(plan, report_to, made)


def _carry_out(plan: Plan, report_to: str | None, made: tuple[Teacher, Conditions] | None) -> Student:
    from bootdiff.training.accelerator import end_training, make_accelerator, start_tracker
    from bootdiff.training.loop import Loop

    settings, output = plan.settings, plan.output
    accelerator = make_accelerator(settings, output, report_to)
    # Before the run is begun: a student that does not fit, or a damaged encoder, must leave nothing behind.
    student = None
    if plan.start is not None and plan.first is None:
        student = started_from(plan.start, plan.teacher, plan.asked.settings)
    within = made is not None
    if made is None and plan.conditions is not None:
        made = plan.teacher, plan.conditions
    made = made or plan.asked.make(output, accelerator.device)
    if accelerator.is_main_process:
        for caution in plan.asked.settings.cautions(plan.teacher):
            print(f"bootdiff: note: {caution}", file=sys.stderr)
        origin = plan.teacher.denoiser.origin
        Run(output).start(plan.config, plan.sources, origin.commit if origin else None)
        plan.asked.keep(output)
    if plan.first is not None and not word_of_first(plan.first.finished):
        run_plan(plan.first, report_to, made)
        accelerator = make_accelerator(settings, output, report_to)
    if plan.first is not None:
        student = started_from(plan.first.output, plan.teacher, plan.asked.settings)
    torch.manual_seed(settings.seed)
    objective = load_method(plan.method)[0].from_settings(made[0], settings, made[1], student)
    start_tracker(accelerator, settings)
    watch = _watch(plan, *made, accelerator.num_processes)
    check_best(plan, watch)
    loop = Loop(objective, settings, output, accelerator, _preview(plan, made[1]), watch)
    before = first_pulse(plan, loop, *made)
    try:
        learner = loop.run(show_progress=not plan.finished)["student"]
    except NonFiniteLossError as error:
        raise _blamed(plan.teacher, error) from error
    # Mixed precision patches the network's forward; the student that is handed out is the one that is saved.
    student = cast("Student", accelerator.unwrap_model(learner.prepared, keep_fp32_wrapper=False))
    if learner.ema is not None:
        learner.ema.swap()
    best_step = take_best(student, watch, accelerator)
    diverged = None if before is None else divergence(plan, student, before, *made)
    student.requires_grad_(False).eval().cpu()
    student.conditions = plan.asked.facts
    plan.teacher.cpu()
    if accelerator.is_main_process and not plan.finished:
        save_results(plan, student, Ended(loop.step, round(loop.seconds, 1), best_step or loop.step, diverged))
    accelerator.wait_for_everyone()
    end_training(accelerator, last=not within)
    return student


def _blamed(teacher: Teacher, error: NonFiniteLossError) -> NonFiniteLossError:
    """The same error, or the teacher's name where it was the teacher that gave values that are not finite."""
    failed = getattr(teacher.denoiser, "failed_at", None)
    if failed is None:
        return error
    met = str(error).partition(" Lower the learning rate")[0]  # which is no cure here
    return NonFiniteLossError(
        f"the teacher {teacher.name} gives values that are not finite at t = {failed:.4g}; load it in float32, or "
        f"leave that time out with t_min and t_max. So {met}"
    )


def _student_hash(folder: Path) -> str:
    """Of the files of an unfolded student."""
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(folder.rglob("*.safetensors")):
        digest.update(hashlib.file_digest(file.open("rb"), "blake2b").digest())
    return digest.hexdigest()


def _watch(plan: Plan, teacher: Teacher, conditions: Conditions, processes: int) -> Watch | None:
    """Looks at the convergence, where the run is long enough to pay for them."""
    settings = cast("DistillationSettings", plan.settings)
    if settings.t_min is None or settings.t_max is None:
        return None
    shown = TeacherFeatures.of(teacher, settings.t_min) is not None
    looks = WatchPlan.of(settings, teacher.shape, processes, shown)
    if looks is None:
        return None
    learned = limited(teacher, target_limit(settings, teacher))
    times, stops = (settings.t_min, settings.t_max), settings.stop_when == "converged"
    keeps = settings.keep == "best"
    return Watch(learned, conditions, times, plan.output, looks, settings.steps, stops, settings.warm_from, keeps)


def _preview(plan: Plan, conditions: Conditions) -> Any:
    adapter = adapter_of(plan.teacher)
    latent = adapter is not None and adapter.latent
    if not is_picture(plan.teacher.shape) and not latent:
        return None
    count = LATENT_PREVIEWS if latent else PREVIEWS
    noise, listed = sample_noise(0, 0, count, plan.teacher.shape), conditions.listed(0, 0, count).to("cpu")

    def preview(step: int, networks: dict[str, Any]) -> None:
        student: Student = networks["student"]
        device = next(student.parameters()).device
        made = [
            student.decode(student.sample(eps.to(device), listed.index(slice(i, i + 1)).to(device))).cpu()
            for i, eps in enumerate(noise.split(1))
        ] if latent else [student.sample(noise.to(device), listed.to(device)).cpu()]  # fmt: skip
        if adapter is not None:
            adapter.release_decoder()
        write_whole(plan.output / "samples" / f"step-{step:08d}.png", grid(torch.cat(made)).save)

    return preview
