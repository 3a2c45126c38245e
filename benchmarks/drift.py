"""What a run made to drift hands over: its best look's student beside its last one, for several seeds.

python benchmarks/drift.py

A BOOT student of the builtin ``digits`` teacher is corrected by distribution matching, without BOOT's loss, at a rate
that rises to ten times the quickstart's: so it gets better, and then runs away from its teacher. Each seed is trained
with ``keep=best`` and with ``keep=last``, which are the same training to the last bit.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from common import arguments, table
from records import FOLDER, new_record, write_record

import bootdiff
from bootdiff.builtin import builtin_folder
from bootdiff.config.settings import make_settings
from bootdiff.core.randomness import sample_noise
from bootdiff.distillation.distill import distill
from bootdiff.methods.registry import find_method
from bootdiff.metrics.frechet import Accumulator, frechet_distance
from bootdiff.monitoring.convergence import read_watch, verdict_of
from bootdiff.storage.files import read_json
from bootdiff.storage.reading import read_config
from bootdiff.students import Student

WILD: dict[str, Any] = {
    "learning_rate": 4e-3,
    "lr_schedule": "constant",
    "fake_warmup": 20,
    "boot_weight": 0,
    "ema_decay": 0.9,
}
NOISE_SEED, BATCH = 5000, 500


def distance(student: Student, num: int) -> float:
    """Fréchet distance of the student's samples to all digits, in the builtin feature space."""
    from bootdiff.evaluation.references import find_reference, open_features

    space = open_features("digits", bootdiff.load_teacher("digits"))
    seen = Accumulator()
    for start in range(0, num, BATCH):
        noise = sample_noise(NOISE_SEED, start, min(num, start + BATCH), (1, 8, 8))
        seen.add(space(student.sample(noise)))
    return frechet_distance(seen.statistics(), find_reference("digits", space).statistics)


def trained(folder: Path, method: str, words: dict[str, Any]) -> Student:
    """A student trained with these settings, in evaluation mode."""
    return distill("digits", folder, make_settings(find_method(method).settings, words), method)


def measured(seed: int, folder: Path, steps: int, num: int) -> dict[str, Any]:
    """One seed's row."""
    recipe = read_config(builtin_folder("digits") / "corrected.yaml") | {"seed": seed}
    first = recipe.pop("boot")
    path = {key: recipe[key] for key in ("batch_size", "distance", "delta", "t_max", "boundary_every")}
    start = trained(folder / "start", "boot", {**path, **first, "seed": seed, "steps": 400})
    rises = {"steps": steps, "warmup_steps": steps - WILD["fake_warmup"], "watch_every": max(1, steps // 20)}
    words = {**recipe, **WILD, **rises, "start": str(folder / "start")}
    best = trained(folder / "best", "dm", words)
    last = trained(folder / "last", "dm", {**words, "keep": "last"})
    done, looks = read_json(folder / "best" / "done.json"), read_watch(folder / "best")
    near, far = distance(best, num), distance(last, num)
    return {
        "seed": seed,
        "before the correction": distance(start, num),
        "last": far,
        "best look": near,
        "last ÷ best": far / near,
        "step of the best look": done.get("student_step", done["steps"]),
        "steps": done["steps"],
        "looks": len(looks),
        "verdict": verdict_of(folder / "best").word,
    }


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--num", type=int, default=5000)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [measured(seed, Path(tempfile.mkdtemp()), options.steps, options.num) for seed in options.seeds]
    table([[f"{v:.3g}" if isinstance(v, float) else v for v in row.values()] for row in rows], list(rows[0]))
    factor = {"factor": "last ÷ best", "smallest": min(row["last ÷ best"] for row in rows)}
    factor["median"] = statistics.median(row["last ÷ best"] for row in rows)
    values = {"students": rows, "factor": [factor]}
    write_record(options.output or FOLDER / "drift.json", new_record(values, [*options.seeds, NOISE_SEED]))


if __name__ == "__main__":
    main()
