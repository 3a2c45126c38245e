"""How exact the ends of the teacher's path are that a run's looks compare with: few steps beside 50 of Heun.

python benchmarks/path.py
"""

from __future__ import annotations

from typing import Any

import torch
from common import arguments, table
from records import FOLDER, new_record, write_record

from bootdiff.core.randomness import sample_noise
from bootdiff.solvers import SOLVERS, even_times, solve
from bootdiff.teachers import Teacher, limited, load_teacher

#: where the quickstart's path starts
T_MAX = 0.7
TRIED = {"euler": (6, 12, 24, 48), "heun": (4, 8, 16, 32)}


def rows(teacher: Teacher, num: int, seed: int) -> list[dict[str, Any]]:
    """Mean squared differences to the end of 50 Heun steps, from the same noises."""
    low, high = teacher.t_range[0], teacher.nearest_start(T_MAX)
    noise = sample_noise(seed, 0, num, teacher.shape)

    def end(name: str, steps: int) -> torch.Tensor:
        return solve(teacher, noise, even_times(steps, low, high), SOLVERS[name])[-1]

    exact = end("heun", 50)
    return [
        {
            "solver": name,
            "steps": steps,
            "teacher calls": 1 + steps * (2 if name == "heun" else 1),
            "path error": float((end(name, steps) - exact).square().mean()),
        }
        for name, tried in TRIED.items()
        for steps in tried
    ]


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--num", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    teacher = load_teacher(options.teacher)
    found = rows(limited(teacher, teacher.limit), options.num, options.seed)
    table([[f"{v:.3g}" if isinstance(v, float) else v for v in row.values()] for row in found], list(found[0]))
    write_record(options.output or FOLDER / "path.json", new_record({"solvers": found}, [options.seed]))


if __name__ == "__main__":
    main()
