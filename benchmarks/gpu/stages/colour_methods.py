"""Several methods on the colour teacher, classes and all, each with one budget of passes, by ``bootdiff benchmark``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from classifier import ColourFeatures
from context import Context
from methods import best, line

from bootdiff.benchmark.plan import Asked, plan_benchmark
from bootdiff.benchmark.run import Runner
from bootdiff.evaluation.measurement import Measurement
from stages.colour_student import find_teacher
from stages.fashion import PATH

#: passes of every run, and the seconds that one of them takes at most, with starting and measuring
PASSES, SECONDS = 1_000_000, 110
BATCH = 512
SHARED = {"mixed_precision": "bf16", "batch_size": BATCH, "learning_rate": 7e-4, "warmup_steps": 20}
START = {"t_max": 0.93}
STEPS = {key: PATH[key] for key in ("delta", "boundary_every")}
#: what differs from the recipes of ``bootdiff benchmark``, which are for small networks and batches
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "boot": {**SHARED, **STEPS, **START},
    "direct": {**SHARED, **START},
    "boot+dm": {
        **{**SHARED, "learning_rate": 1e-4, "fake_learning_rate": 4e-4, "noise_levels": [0.3, 0.97]},
        **{**STEPS, **START, "boot": {"learning_rate": 7e-4, "warmup_steps": 20, "batch_size": BATCH}},
    },
    "consistency": SHARED,
    "progressive": {**SHARED, "t_max": None},
}
#: at toy size: methods, passes and batch
TOY = (("boot", "direct"), 3000, 8)


def run(context: Context) -> None:
    """The tables ``one call``, ``two calls`` and ``teacher``, written again after each method."""
    folder = find_teacher(context)
    methods, passes, batch = TOY if context.toy else (tuple(SETTINGS), PASSES, BATCH)
    features = ColourFeatures(folder / "features.onnx")
    num = 32 if context.toy else 10_000
    calls = (1,) if context.toy else (1, 2, 4, 10)
    for method in methods:
        if not context.toy and context.left < SECONDS:
            context.say(f"{method} is not begun: {context.left:.0f} seconds are left, and it may take {SECONDS}")
            continue
        asked = Asked(
            str(folder),
            context.work / "benchmark",
            methods=[method],
            passes=passes,
            shared={"null_class": 10},
            assigned={method: {**SETTINGS[method], "batch_size": batch}},
            measured=Measurement(features, str(folder / "reference.npz"), num=num, calls=calls, heun=False),
        )
        runner = Runner(plan_benchmark(asked))
        runner.run()
        put(context, runner)


def put(context: Context, runner: Runner) -> None:
    """Write what is known of all methods so far into the record."""
    from bootdiff.benchmark.results import results_in, rows_of, teacher_rows

    found, _ = results_in(runner.plan.asked.output, runner.plan.identity)
    rows = list(rows_of(found))
    for number, words in ((1, "one call"), (2, "two calls")):
        same = [line(row) for row in rows if row["calls"] == number]
        if same:
            context.put(words, same)
    context.put("teacher", [best(row) for row in teacher_rows(found) if row["best_of"] is not None])
