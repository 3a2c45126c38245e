"""What a training step of the paper's CIFAR-size U-Net costs: 36 M parameters, 32×32, random weights.

The floating-point operations of a step are counted by torch's ``FlopCounterMode`` (matrix products, convolutions and
attention, forwards and backwards; a multiplication and an addition are two), on a small batch, and grow with it.
"""

from __future__ import annotations

import gc
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import device, make_loop, measure, open_teacher, ratios, steps, synchronise, teacher_around
from context import Context, OutOfTime, said
from step import PERIOD, bare_passes, literal
from torch.utils.flop_counter import FlopCounterMode

from bootdiff.config.settings import make_settings
from bootdiff.data.conditions import Classes
from bootdiff.data.sources import Noise
from bootdiff.distillation.conditioning import plan_conditions
from bootdiff.methods.registry import find_method
from bootdiff.teachers import Teacher, load_teacher
from bootdiff.teaching.untrained import Data
from bootdiff.training.accelerator import make_accelerator
from bootdiff.training.loop import Loop
from stages.colour_teacher import SETTINGS, TOY, toy_images, training

#: dense bf16 rates in TFLOP/s, from the makers' data sheets, by a word of the card's name
PEAKS = {"H100": 989.4, "H200": 989.4, "A100": 312.0, "L40S": 362.0}
PAPERS_BATCH, LARGE_BATCH = 128, 512
COUNTED = 8
#: seconds that compiling may take
COMPILING = 75.0
SPENT_ON_A_ROW = 2.0

VARIANTS: dict[str, dict[str, Any]] = {
    "bf16": {"mixed_precision": "bf16"},
    "float32, TF32": {},
    "float32, no TF32": {},
}


def run(context: Context) -> None:
    """Tables ``synchronisations``, ``step``, ``ratios``, ``optimiser``, and ``compiled``, in this order."""
    teacher = small_teacher() if context.toy else open_teacher("cifar")
    sizes = (4,) if context.toy else (PAPERS_BATCH, LARGE_BATCH)
    count = 2 if context.toy else 10
    for name, make in loops(teacher, sizes[0], context.work, context.toy).items():
        context.add("synchronisations", synchronisations(name, make, count))
    flops = step_flops(teacher)
    for size in sizes:
        for name in list(VARIANTS)[: 2 if context.toy or size > PAPERS_BATCH else None]:  # the slowest once
            context.add("step", step_row(teacher, size, name, flops, context.toy))
    context.put("ratios", ratio_rows(teacher, sizes[0], context.toy))
    context.put("optimiser", optimiser_rows(teacher, context.toy))
    context.put("compiled", compiled_rows(context, sizes[0], flops))


def small_teacher(**fields: Any) -> Teacher:
    """A U-Net of a few thousand parameters, to see that everything runs."""
    from diffusers import DDPMScheduler

    from tiny_unet import tiny_unet

    return teacher_around(tiny_unet(3, **fields), DDPMScheduler(), "toy")


def loops(teacher: Teacher, size: int, work: Path, toy: bool) -> dict[str, Callable[[], Loop]]:
    """What should not wait: BOOT on the U-Net; on tiny networks a correction, prompts, and a teacher's training."""

    def boot(precision: str) -> Loop:
        return make_loop(teacher, size, boundary_every=PERIOD, mixed_precision=precision)[0]

    def on_classes() -> Loop:
        settings = method_settings("dm", fake_warmup=1)
        labelled = small_teacher(num_class_embeds=10)
        objective = find_method("dm").build(labelled, settings, Noise(labelled.shape, Classes(range(10))))
        return Loop(objective, settings, work, make_accelerator(settings, work))

    def on_prompts() -> Loop:
        from tiny_pipelines import save_sdxl

        work.mkdir(parents=True, exist_ok=True)
        (work / "prompts.txt").write_text("a red cat\nthe blue dog\na photo", encoding="utf-8")
        settings = method_settings("boot", prompts=str(work / "prompts.txt"))
        made = plan_conditions(load_teacher(str(save_sdxl(work / "sdxl"))), settings).make(work, device())
        objective = find_method("boot").build(made.teacher, settings, Noise(made.teacher.shape, made.conditions))
        return Loop(objective, settings, work, make_accelerator(settings, work))

    def of_a_teacher() -> Loop:
        pixels, labels = toy_images()[0]
        return training(work, Data(pixels, labels=labels), SETTINGS | TOY, 10**6)[1]

    found: dict[str, Callable[[], Loop]] = {
        "BOOT, float32": partial(boot, "no"),
        "BOOT, bf16": partial(boot, "bf16"),
        "distribution matching, classes": on_classes,
        "BOOT, prompts, SDXL": on_prompts,
        "a teacher on images and labels": of_a_teacher,
    }
    return {name: make for name, make in found.items() if not toy or name != "BOOT, prompts, SDXL"}


def method_settings(method: str, **words: Any) -> Any:
    """A method's settings for a loop that never logs or saves."""
    never = {"steps": 10**6, "sample_every": 0, "checkpoint_every": 10**6, "log_every": 10**6, "batch_size": 4}
    return make_settings(find_method(method).settings, never, words)


def synchronisations(name: str, make: Callable[[], Loop], count: int) -> dict[str, Any]:
    """How often ``count`` steps make the processor wait for the GPU, by torch's own count, and where the first time.

    The loop's look at a turn's health waits for an event of the turn before, which is no wait for what is queued, and
    is not counted.
    """
    loop = make()
    steps(loop, min(count, PERIOD))
    synchronise()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _sync_debug("warn")
        try:
            steps(loop, count)
        finally:
            _sync_debug("default")
    found = [w for w in caught if "synchronizing CUDA operation" in str(w.message)]
    where = Counter(f"{'/'.join(w.filename.split('/')[-2:])}:{w.lineno}" for w in found)
    known = torch.cuda.is_available()
    counted = len(found) if known else None
    return {
        "training": name,
        "steps": count,
        "synchronisations": counted,
        "where": ", ".join(f"{place} ({count})" for place, count in where.most_common(3)) or None,
    }


def _sync_debug(mode: str) -> None:
    if torch.cuda.is_available():
        torch.cuda.set_sync_debug_mode(mode)


def step_flops(teacher: Teacher) -> float:
    """Floating-point operations of a step, for one sample: the mean of PERIOD steps with one boundary."""
    loop = make_loop(teacher, COUNTED, boundary_every=PERIOD)[0]
    counter = FlopCounterMode(display=False)
    with counter:
        steps(loop, PERIOD)
    return counter.get_total_flops() / (PERIOD * COUNTED)


def tf32(name: str) -> None:
    """Switch TF32, in matrix products and convolutions, as the variant's name says."""
    on = "no TF32" not in name
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on


def step_row(teacher: Teacher, size: int, name: str, flops: float, toy: bool) -> dict[str, Any]:
    """Milliseconds, rate, share of the card's bf16 peak and peak memory of one variant at one batch size."""
    tf32(name)
    try:
        before = _fresh_memory()
        loop = make_loop(teacher, size, boundary_every=PERIOD, **VARIANTS[name])[0]
        seconds = timed(loop, toy)
        memory = (torch.cuda.max_memory_allocated() - before) / 2**30 if torch.cuda.is_available() else None
    except torch.OutOfMemoryError:
        return {"batch": size, "precision": name, "what": "out of memory"}
    finally:
        tf32("TF32")
    return {"batch": size, "precision": name, **rates(seconds, size * flops), "images/s": size / seconds,
            "peak memory, GiB": memory}  # fmt: skip


def rates(seconds: float, flops: float) -> dict[str, Any]:
    """Milliseconds of a step with so many operations, TFLOP/s, and the share of the card's bf16 peak."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    peak = next((rate for word, rate in PEAKS.items() if word in name), None)
    rate = flops / seconds / 1e12
    share = None if peak is None else f"{100 * rate / peak:.1f} %"
    return {"ms a step": 1000 * seconds, "TFLOP a step": flops / 1e12, "TFLOP/s": rate, "of the bf16 peak": share}


def timed(loop: Loop, toy: bool) -> float:
    """Seconds of a step: the median of groups of PERIOD steps, for a few seconds."""
    steps(loop, 1 if toy else PERIOD)
    synchronise()
    groups: list[float] = []
    began = time.perf_counter()
    while not groups or (not toy and (len(groups) < 3 or time.perf_counter() - began < SPENT_ON_A_ROW)):
        started = time.perf_counter()
        steps(loop, PERIOD)
        synchronise()
        groups.append((time.perf_counter() - started) / PERIOD)
    return statistics.median(groups)


def _fresh_memory() -> int:
    """Forget the loops before, and begin to count the peak; what is held by others is the ground it is counted from."""
    gc.collect()
    if not torch.cuda.is_available():
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def ratio_rows(teacher: Teacher, size: int, toy: bool) -> list[dict[str, Any]]:
    """A step beside its bare network passes, and beside Algorithm 1 written down literally, measured in turns."""
    _fresh_memory()
    rows: list[dict[str, Any]] = []
    bf16 = partial(torch.autocast, device().type, torch.bfloat16)
    kinds = (("bf16", {"mixed_precision": "bf16"}, bf16, 6), ("float32, TF32", {}, None, 2))
    for name, words, autocast, repeats in kinds[:1] if toy else kinds:
        tf32(name)
        seldom, objective = make_loop(teacher, size, boundary_every=PERIOD, **words)
        often = make_loop(teacher, size, boundary_every=1, **words)[0]
        extra = {} if autocast is None else {"autocast": autocast}
        raw: Any = objective.student.module
        seconds = measure(
            {
                "step": partial(steps, seldom, PERIOD),
                "bare": bare_passes(raw, teacher, size, 1, **extra),
                "every": partial(steps, often, PERIOD),
                "bare, every": bare_passes(raw, teacher, size, PERIOD, **extra),
                # With the same precision: accelerate knows one a process, and another would take the loops' away.
                "literal": literal(make_loop(teacher, size, **words)[1], size, **extra),
            },
            repeats=1 if toy else repeats,
        )
        pairs = {
            "step ÷ bare passes, boundary on every 4th step": ("step", "bare"),
            "step ÷ bare passes, boundary on every step": ("every", "bare, every"),
            "Algorithm 1 ÷ step, boundary on every step": ("literal", "every"),
            "Algorithm 1 ÷ step, boundary on every 4th step": ("literal", "step"),
        }
        for ratio, (above, below) in pairs.items():
            middle, low, high = ratios(seconds[above], seconds[below])
            rows.append({"ratio": ratio, "precision": name, "batch": size, "median": middle, "lowest": low,
                         "highest": high})  # fmt: skip
    return rows


def optimiser_rows(teacher: Teacher, toy: bool) -> list[dict[str, Any]]:
    """AdamW's step over the student's parameters: one fused kernel, as the loop has it, or torch's usual ones."""
    objective = make_loop(teacher, COUNTED)[1]
    parameters = [p for p in objective.student.module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    kinds: dict[str, Callable[[], object]] = {
        name: torch.optim.AdamW(parameters, lr=1e-9, **words).step
        for name, words in {"fused": {"fused": True}, "foreach": {"foreach": True}}.items()
    }
    seconds = measure(kinds, 3 if toy else 20)
    size = sum(p.numel() for p in parameters)
    return [{"AdamW": n, "parameters": size, "ms a step": 1000 * statistics.median(s)} for n, s in seconds.items()]


def compiled_rows(context: Context, size: int, flops: float) -> list[dict[str, Any]]:
    """The bf16 step with torch.compile, where that comes to its end in the time that is left."""
    row: dict[str, Any] = {"batch": size, "precision": "bf16, compiled"}
    room = min(COMPILING, context.left - 8)
    if context.toy or room < 20:
        why = "not tried at toy size" if context.toy else f"not tried: {room:.0f} s are left"
        return [{**row, "what": why}]
    began = time.perf_counter()
    try:
        with context.limited(room):
            # A teacher of its own: compiling is done in place.
            loop = make_loop(open_teacher("cifar"), size, boundary_every=PERIOD, mixed_precision="bf16", compile=True)[
                0
            ]
            steps(loop, PERIOD)
            synchronise()
            waited = time.perf_counter() - began
            seconds = timed(loop, context.toy)
    except OutOfTime:
        return [{**row, "what": f"not compiled within {room:.0f} s"}]
    except Exception as error:
        return [{**row, "what": f"failed: {said(error)}"}]
    plain = next(
        (r["ms a step"] for r in context.tables["step"] if r["precision"] == "bf16" and "ms a step" in r), None
    )
    faster = None if plain is None else plain / (1000 * seconds)
    more = {"images/s": size / seconds, "not compiled ÷ compiled": faster, "seconds of compiling": waited}
    return [{**row, **rates(seconds, size * flops), **more}]
