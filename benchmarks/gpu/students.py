"""What the stages that train a student share: steps from measured speed, the run, its curve and its table."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from checkpoints import put_averages
from common import device, steps, synchronise
from context import MARGIN, Context, below

from bootdiff import distill, load_student, load_teacher
from bootdiff.config.settings import make_settings
from bootdiff.data.conditions import Classes
from bootdiff.data.pictures import grid
from bootdiff.data.sources import Noise
from bootdiff.distillation.conditioning import plan_conditions
from bootdiff.evaluation.measure import Listed, measure, measured_row, speed, work_of
from bootdiff.evaluation.tally import Judges
from bootdiff.methods.registry import find_method
from bootdiff.samplers.base import noise_batches
from bootdiff.samplers.rows import Candidate, Row, ddim_sampler
from bootdiff.samplers.students import PathSampler
from bootdiff.solvers import trailing_times
from bootdiff.storage.files import read_json
from bootdiff.storage.runs import Run, trained_seconds
from bootdiff.students import Student
from bootdiff.teachers import Teacher
from bootdiff.training.accelerator import make_accelerator
from bootdiff.training.loop import Loop

METHOD = "boot+dm"
#: the folder of its first stage
STAGE = "boot"
#: classes of the teachers here; the next label stands for none
CLASSES = list(range(10))
#: of the noises that students and teachers are measured with
NOISE_SEED = 123
#: samples a network is given at a time
AT_ONCE = 1000
#: looks at the curve in each of the two stages
LOOKS = 5


@dataclass(frozen=True)
class Recipe:
    """How a student of one of the class-conditional teachers is trained and measured.

    Args:
        boot, correction: settings of the two stages, without their steps.
        share: of the training time that BOOT gets.
        most: steps of the two stages beyond which no more time is spent.
        reserve: seconds that measuring takes.
        num, on_the_way: samples of a row, and of a point of the curve.
        teacher_calls: DDIM rows of the teacher.
    """

    boot: Mapping[str, Any]
    correction: Mapping[str, Any]
    share: float = 0.6
    most: tuple[int, int] = (6000, 600)
    reserve: float = 60.0
    num: int = 10_000
    on_the_way: int = 2_000
    teacher_calls: Sequence[int] = (10, 50)

    @property
    def toy(self) -> Recipe:
        """The same with a handful of samples."""
        small = {"batch_size": 4, "mixed_precision": "no"}
        correction = {**self.correction, **small, "fake_warmup": 1, "warmup_steps": 0, "fake_updates": 1}
        boot = {**self.boot, "warmup_steps": 0}
        return Recipe(boot, correction, most=(3, 2), reserve=0.0, num=16, on_the_way=8, teacher_calls=(2,))


def train_and_measure(context: Context, folder: Path, judges: Judges, recipe: Recipe) -> None:
    """Tables ``plan``, ``samplers`` and ``curve``, pictures, and the archive of a stage."""
    recipe = recipe.toy if context.toy else recipe
    plan = context.remembered("plan", lambda: planned(context, folder, recipe, context.left - recipe.reserve))
    context.put("plan", [plan])
    context.say(", ".join(f"{key} {value}" for key, value in plan.items()))
    run, settings = context.work / "run", settings_of(recipe, plan["BOOT steps"], plan["correction steps"])
    student = distill(load_teacher(str(folder)), run, settings, METHOD).to(device())
    teacher = load_teacher(str(folder)).to(device())
    seconds = trained_seconds(run)
    measurer = Measurer(teacher, judges, recipe.num)
    picture(student, context.work / "student.png", teacher, recipe.teacher_calls[-1])
    row = measurer.row("student", 1, PathSampler(student))
    context.add("samplers", {**row, "trained, s": seconds})
    first = load_student(run / STAGE, teacher).to(device())
    row = measurer.row("first stage, BOOT alone", 1, PathSampler(first))
    context.add("samplers", {**row, "trained, s": trained_seconds(run / STAGE)})
    context.archive(handed_back(context, run))
    context.put("curve", curve(run, Measurer(teacher, judges, recipe.on_the_way)))
    teacher_rows(context, measurer, recipe.teacher_calls)
    context.archive(handed_back(context, run))


def planned(context: Context, folder: Path, recipe: Recipe, seconds: float) -> dict[str, Any]:
    """Steps of both stages such that their training fits into so many seconds."""
    asked = time.monotonic()
    teacher = load_teacher(str(folder))
    settings = settings_of(recipe, 1000, 1000)
    boot, correction = (
        step_seconds(teacher, method, own, context.work / "speed", context.toy)
        for method, own in (("boot", settings.first), ("dm", settings))
    )
    room = max(1.0, (seconds - (time.monotonic() - asked)) * (1 - MARGIN))
    counts = [
        max(least, min(most, int(part / speed)))
        for part, speed, least, most in (
            (recipe.share * room, boot, 3, recipe.most[0]),
            ((1 - recipe.share) * room, correction, settings.fake_warmup + 1, recipe.most[1]),
        )
    ]
    return {
        "batch": settings.batch_size,
        "BOOT, ms a step": round(1000 * boot, 2),
        "BOOT steps": counts[0],
        "correction, ms a step": round(1000 * correction, 2),
        "correction steps": counts[1],
    }


def settings_of(recipe: Recipe, boot: int, correction: int) -> Any:
    """Both stages' settings, with looks at the curve from checkpoints; nothing else is looked at on the way."""
    quiet = {"sample_every": 0, "log_every": 50, "keep_last": 2 * LOOKS}
    first = {**recipe.boot, "steps": boot, "checkpoint_every": math.ceil(boot / LOOKS)}
    words = {**recipe.correction, "steps": correction, "checkpoint_every": math.ceil(correction / LOOKS)}
    return make_settings(find_method(METHOD).settings, quiet, words, {"boot": first})


def step_seconds(teacher: Teacher, method: str, settings: Any, folder: Path, toy: bool) -> float:
    """Seconds of a step in which every learner has its turns."""
    made = plan_conditions(teacher, settings).make(folder, device())
    objective = find_method(method).build(made.teacher, settings, Noise(made.teacher.shape, made.conditions))
    loop = Loop(objective, settings, folder, make_accelerator(settings, folder))
    loop.step = getattr(settings, "fake_warmup", 0)
    steps(loop, 1 if toy else 8)
    synchronise()
    started, count = time.perf_counter(), 4 if toy else 16
    steps(loop, count)
    synchronise()
    return (time.perf_counter() - started) / count


@dataclass(frozen=True)
class Measurer:
    """Rows of figures from the same noises and labels.

    Args:
        teacher: whose samples, or whose students', are measured.
        judges: feature space and reference.
        num: samples of a row.
    """

    teacher: Teacher
    judges: Judges
    num: int

    def row(self, name: str, calls: int, sample: Any) -> dict[str, Any]:
        """Of one sampler: from noises and conditions to images."""
        candidate = Candidate(Row("teacher", name, calls, calls), sample, same_path=False)
        batches = work_of(self.teacher, Listed(Classes(CLASSES)), NOISE_SEED, self.num, min(AT_ONCE, self.num))
        first = next(work_of(self.teacher, Listed(Classes(CLASSES)), NOISE_SEED, AT_ONCE, min(AT_ONCE, self.num)))
        figures = measure(candidate, batches, self.judges) or {}
        words = measured_row(candidate, [figures], {"images_per_second": speed(candidate, first)})
        recall = words["figures"].get("recall")
        return {
            "sampler": name,
            "calls": calls,
            "samples": self.num,
            "Fréchet distance": words["frechet_distance"],
            "recall": None if recall is None else recall["value"],
            "faithful": words["faithfulness"],
            "images/s": words["images_per_second"],
        }


def teacher_rows(context: Context, measurer: Measurer, calls: Sequence[int]) -> None:
    """The teacher's DDIM, evenly spaced, as far as the time allows."""
    speed: float | None = None
    for count in calls:
        needed = 0.0 if speed is None else 1.2 * count * measurer.num / speed
        row = {"sampler": f"teacher, DDIM {count}", "calls": count}
        if needed > context.left - 3:
            context.add("samplers", {**row, "what": f"not measured: it would take {needed:.0f} s"})
            continue
        times = trailing_times(count, *measurer.teacher.t_range)
        known = measurer.row(row["sampler"], count, ddim_sampler(measurer.teacher, times))
        speed = count * known["images/s"]
        context.add("samplers", known)


def curve(run: Path, measurer: Measurer) -> list[dict[str, Any]]:
    """The averaged student at every checkpoint, against the seconds of training until there."""
    rows, before = [], 0.0
    for name, folder in (("BOOT", run / STAGE), ("correction", run)):
        words = Run(folder).config["settings"]
        student = Student.from_teacher(measurer.teacher, words["t_min"], words["t_max"]).to(device())
        found = points(folder)
        for point in found:
            put_averages(student, point.path)
            row = measurer.row(name, 1, PathSampler(student))
            rows.append({"stage": name, "step": point.step, "seconds": round(before + point.seconds, 1),
                         "Fréchet distance": row["Fréchet distance"], "samples": measurer.num})  # fmt: skip
        before += found[-1].seconds if found else 0.0
    return rows


@dataclass(frozen=True)
class Point:
    """A checkpoint of a run: its step, and the seconds of training until there."""

    step: int
    seconds: float
    path: Path


def points(run: Path) -> list[Point]:
    """The checkpoints of a run, in their order."""
    paths = sorted((run / "checkpoints").glob("step-*"))
    states = [(read_json(path / "state.json"), path) for path in paths]
    return sorted((Point(state["step"], state["seconds"], path) for state, path in states), key=lambda p: p.step)


def picture(student: Student, path: Path, teacher: Teacher, calls: int) -> None:
    """A hundred samples, a column a class, and beside them the teacher's by DDIM from the same noises."""
    count = 10 * len(CLASSES)
    eps = next(noise_batches(NOISE_SEED, count, teacher.shape, count))
    condition = Classes(CLASSES).listed(0, 0, count).to(eps.device)
    path.parent.mkdir(parents=True, exist_ok=True)
    grid(student.sample(eps, condition).cpu(), columns=len(CLASSES)).save(path)
    made = ddim_sampler(teacher, trailing_times(calls, *teacher.t_range))(eps, condition)
    grid(made.cpu(), columns=len(CLASSES)).save(path.with_name("teacher.png"))


def handed_back(context: Context, run: Path) -> dict[str, Path]:
    """Pictures, what was asked, the logs, and the exported student as far as it fits."""
    names = ("config.yaml", "log.jsonl", "done.json")
    kept = {f"{part}{name}": run / part / name for part in ("", f"{STAGE}/") for name in names}
    pictures = {p.name: p for p in sorted(context.work.glob("*.png"))}
    found = {**pictures, "plan.json": context.work / "plan.json", **kept, **below(half_student(run), "student-float16")}
    return {name: file for name, file in found.items() if file.exists()}


def half_student(run: Path) -> Path:
    """The exported student in float16: half as large, and as good for a picture."""
    folder = run / "student-float16"
    if not folder.exists():
        from diffusers import DiffusionPipeline

        DiffusionPipeline.from_pretrained(run / "student", dtype=torch.float16).save_pretrained(folder)
    return folder
