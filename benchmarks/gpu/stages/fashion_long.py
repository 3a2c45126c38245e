"""fashion-32 for as long as there is: BOOT, a correction, and from its student several further ones side by side.

The further corrections differ by a critic on the teacher's own samples, by SiD's objective, and by a larger batch with
a fresher fake. They share the card, each in a process of its own, because one alone waits for its kernels to be
started most of the time. So the curve's seconds are of a shared card.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from checkpoints import put_averages
from common import device
from context import PACKED, Context
from safetensors.torch import save_file
from students import STAGE, Measurer, picture, planned, points, settings_of

from bootdiff import distill, load_student, load_teacher
from bootdiff.config.settings import make_settings
from bootdiff.evaluation.references import find_reference
from bootdiff.evaluation.tally import Judges
from bootdiff.methods.registry import find_method
from bootdiff.metrics.onnx_features import OnnxFeatures
from bootdiff.samplers.students import PathSampler
from bootdiff.storage.runs import Run, trained_seconds
from bootdiff.students import Student
from stages.fashion import BATCH, PATH, RECIPE, toy_teacher

#: of the stage's time, what the first two trainings get, and the further ones
FIRST, FURTHER = 0.25, 0.57
#: what all further corrections share: lower levels, hardly any of BOOT's loss, rates that stay and a long average
SHARED: Mapping[str, Any] = {
    "batch_size": BATCH // 2,
    "learning_rate": 1e-4,
    "fake_learning_rate": 4e-4,
    "lr_schedule": "constant",
    "ema_decay": 0.99,
    "ema_from_start": True,
    "fake_updates": 3,
    "fake_warmup": 15,
    "beta1": 0.5,
    "boot_weight": 0.05,
    "noise_levels": [0.06, 0.95],
    **PATH,
    "steps": 100_000,
    "checkpoint_every": 60,
    "keep_last": 100,
    "watch_every": 0,
    "sample_every": 0,
}
#: of the samples of the teacher that a critic is shown
SAMPLES = {"pairs": 10_000, "pair_steps": 12}
#: method and settings of each
ENDINGS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "dm": ("dm", {}),
    "dm, critic": ("dm", {"critic_weight": 0.02, **SAMPLES}),
    "sid": ("sid", {}),
    "dm, batch 512, fresher fake": (
        "dm",
        {"batch_size": BATCH, "learning_rate": 5e-5, "fake_learning_rate": 2e-4, "fake_updates": 5},
    ),
}
#: of the toy
TINY = {
    "batch_size": 4,
    "mixed_precision": "no",
    "fake_warmup": 1,
    "fake_updates": 1,
    "checkpoint_every": 2,
    "steps": 4,
}


def run(context: Context) -> None:
    """Tables ``plan``, ``curve`` and ``samplers``, pictures, and the students' weights."""
    folder = toy_teacher(context.work / "teacher") if context.toy else PACKED / "teachers" / "fashion-32"
    first_ends, ends = (time.monotonic() + share * context.left for share in (FIRST, FIRST + FURTHER))
    recipe = RECIPE.toy if context.toy else RECIPE
    plan = context.remembered("plan", lambda: planned(context, folder, recipe, first_ends - time.monotonic()))
    context.put("plan", [plan])
    first = context.work / "run"
    distill(
        load_teacher(str(folder)), first, settings_of(recipe, plan["BOOT steps"], plan["correction steps"]), "boot+dm"
    )
    torch.cuda.empty_cache()
    further(context, folder, first, ends)
    features = OnnxFeatures.fashion()
    judges = Judges(features, find_reference("fashion", features))
    teacher = load_teacher(str(folder)).to(device())
    measure(context, first, Measurer(teacher, judges, recipe.num), Measurer(teacher, judges, recipe.on_the_way))


def place(context: Context, name: str) -> Path:
    """The run of a further correction."""
    return context.work / name.replace(",", "").replace(" ", "-")


def further(context: Context, folder: Path, first: Path, ends: float) -> None:
    """Train the further corrections side by side until ``ends``, on time.monotonic's clock."""
    running = []
    for name, (method, own) in ENDINGS.items():
        words = {**SHARED, **own, "start": str(first)}
        if context.toy:
            words.update({**TINY, "pairs": 4, "pair_steps": 1} if "pairs" in own else TINY)
        target = place(context, name)
        target.with_suffix(".yaml").write_text(yaml.safe_dump(words), encoding="utf-8")
        process = multiprocessing.get_context("spawn").Process(target=train, args=(folder, target, method, words))
        process.start()
        running.append(process)
    while time.monotonic() < ends and any(process.is_alive() for process in running):
        time.sleep(0.2)
    for process in running:
        if process.is_alive():
            os.kill(process.pid or 0, signal.SIGINT)
    for process, name in zip(running, ENDINGS, strict=True):
        process.join(20)
        process.kill()
        if not points(place(context, name)):
            said = place(context, name).with_suffix(".log").read_text(encoding="utf-8", errors="replace")
            context.say(f"{name} has no checkpoint: {said[-600:]}")


def train(folder: Path, output: Path, method: str, words: Mapping[str, Any]) -> None:
    """In a process of its own, which writes what it says into a file: one further correction, until it is stopped."""
    with output.with_suffix(".log").open("wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    torch.set_num_threads(1)
    distill(load_teacher(str(folder)), output, make_settings(find_method(method).settings, words), method)


def measure(context: Context, first: Path, rows: Measurer, looks: Measurer) -> None:
    """The students at the end of every training, then their curves as far as the time allows."""
    teacher, before = rows.teacher, trained_seconds(first)
    curves = {name: points(place(context, name)) for name in ENDINGS}
    for name, folder in (("first stage, BOOT alone", first / STAGE), ("first correction", first)):
        student = load_student(folder, teacher).to(device())
        context.add("samplers", {**rows.row(name, 1, PathSampler(student)), "trained, s": trained_seconds(folder)})
    words = Run(first).config["settings"]
    student = Student.from_teacher(teacher, words["t_min"], words["t_max"]).to(device())
    for name, found in curves.items():
        if found:
            put_averages(student, found[-1].path)
            row = {**rows.row(name, 1, PathSampler(student)), "step": found[-1].step}
            context.add("samplers", {**row, "trained, s": round(before + found[-1].seconds, 1)})
            picture(student, context.work / f"{place(context, name).name}.png", teacher, 2)
            save_half(student, place(context, name).with_suffix(".safetensors"))
    context.archive(
        {p.name: p for kind in ("*.png", "*.yaml", "*.log", "*.safetensors") for p in sorted(context.work.glob(kind))}
    )
    order = sorted((point.step, name, point) for name, found in curves.items() for point in found[:-1])
    for _, name, point in order:
        if context.left < 6:
            break
        put_averages(student, point.path)
        row = looks.row(name, 1, PathSampler(student))
        seconds = round(before + point.seconds, 1)
        context.add("curve", {"correction": name, "step": point.step, "seconds": seconds,
                              "Fréchet distance": row["Fréchet distance"], "samples": looks.num})  # fmt: skip


def save_half(student: Student, path: Path) -> None:
    """A student's weights in float16: they fit four times into what comes back."""
    save_file({name: value.detach().half().cpu().contiguous() for name, value in student.state_dict().items()}, path)
