"""What torch.compile and bfloat16 reach in the same training time as float32.

python benchmarks/quality.py [--seconds 60]

Each variant's steps are counted from its own speed, measured first; compiling is not counted and named apart. The
teacher is the builtin one, the recipe the quickstart's.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from common import arguments, make_loop, save, steps, synchronise, table

from bootdiff.builtin import builtin_folder
from bootdiff.config.settings import make_settings
from bootdiff.distillation.distill import distill
from bootdiff.evaluation.evaluate import evaluate
from bootdiff.evaluation.references import find_reference, open_features
from bootdiff.evaluation.tally import Judges
from bootdiff.methods.boot import BootSettings
from bootdiff.samplers.students import PathSampler
from bootdiff.storage.reading import read_config
from bootdiff.system.allocator import keep_freed_memory
from bootdiff.teachers import load_teacher

VARIANTS = {"float32": {}, "torch.compile": {"compile": True}, "bf16": {"mixed_precision": "bf16"}}


def speed(recipe: dict, variant: dict) -> tuple[float, float]:
    """(seconds a step, seconds until the first steps are done)."""
    words = {k: v for k, v in recipe.items() if k in ("delta", "t_max", "distance", "learning_rate")}
    started = time.perf_counter()
    loop = make_loop(load_teacher("digits"), recipe["batch_size"], boundary_every=4, **words, **variant)[0]
    steps(loop, 4)
    synchronise()
    first = time.perf_counter() - started
    started = time.perf_counter()
    steps(loop, 40)
    synchronise()
    return (time.perf_counter() - started) / 40, first


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--num", type=int, default=2000)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    recipe = read_config(builtin_folder("digits") / "quickstart.yaml")
    rows, figures = [], {}
    for name, variant in VARIANTS.items():
        a_step, first = speed(recipe, variant)
        count = int(options.seconds / a_step)
        settings = make_settings(BootSettings, recipe, variant, {"steps": count, "sample_every": 0})
        started = time.perf_counter()
        student = distill("digits", Path(tempfile.mkdtemp()) / "run", settings)
        trained = time.perf_counter() - started
        teacher = load_teacher("digits")
        space = open_features("digits", teacher)
        judges = Judges(space, find_reference("digits", space))
        times = (student.t_min, student.t_max)
        result = evaluate(
            {name: PathSampler(student)}, teacher, times, judges, num=options.num, seed=1, calls=[], heun=False
        )
        row = result["rows"][-1]
        figures[name] = {"ms": 1e3 * a_step, "steps": count, "seconds": trained, **row}
        cells = [f"{1e3 * a_step:.1f}", count, f"{trained:.0f}", f"{first:.0f}"]
        rows.append([name, *cells, f"{row['frechet_distance']:.2f}", f"{row['path_error']:.4f}"])
    head = ["variant", "ms a step", "steps", "seconds in all", "seconds to the first steps", "Fréchet distance"]
    table(rows, [*head, "path error"])
    save(options.output, figures)


if __name__ == "__main__":
    main()
