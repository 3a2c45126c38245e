"""What one-step sampling costs beside a bare forward pass, and beside the teacher's own 50-step DDIM pipeline.

python benchmarks/sample.py [--teacher digits|FOLDER]
"""

from __future__ import annotations

import torch
from common import arguments, device, measure, open_teacher, quotient, save, table

from bootdiff.allocator import keep_freed_memory
from bootdiff.student import Student

STEPS = 50


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--repeats", type=int, default=101)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    teacher = open_teacher(options.teacher)
    one_step = Student.from_teacher(teacher).one_step().to(device())
    pipeline = ddim_pipeline(teacher)
    rows, figures = [], {}
    for size in options.batch_sizes:
        eps = torch.randn(size, *teacher.shape, device=device())

        def bare(eps: torch.Tensor = eps) -> None:
            with torch.no_grad():
                one_step.network(eps, one_step.own)

        fast = measure({"bare": bare, "one step": lambda eps=eps: one_step(eps)}, options.repeats)
        slow = measure({"one step": lambda eps=eps: one_step(eps), "DDIM": lambda size=size: pipeline(size)}, 7)
        rows.append(quotient(f"one step ÷ bare pass, batch {size}", fast["one step"], fast["bare"], "≤ 1.03"))
        rows.append(quotient(f"DDIM {STEPS} ÷ one step, batch {size}", slow["DDIM"], slow["one step"], "≥ 45"))
        figures[size] = {**fast, f"DDIM {STEPS}": slow["DDIM"]}
    print(f"{options.teacher}; {options.repeats} repeats (DDIM: 7), in turns\n")
    table(rows, ["ratio", "median", "spread", "asked for"])
    print()
    table(
        [[size, *(f"{1000 * sorted(s)[len(s) // 2]:.2f}" for s in f.values())] for size, f in figures.items()],
        ["batch", "bare pass, ms", "one step, ms", f"DDIM {STEPS}, ms"],
    )
    save(options.output, {"teacher": options.teacher, "seconds": {str(k): v for k, v in figures.items()}})


def ddim_pipeline(teacher):
    """diffusers' own DDIMPipeline with the teacher's network and scheduler."""
    from diffusers import DDIMPipeline, DDIMScheduler

    config = teacher.denoiser.scheduler_config
    pipeline = DDIMPipeline(teacher.denoiser.network, DDIMScheduler.from_config(config))
    pipeline.set_progress_bar_config(disable=True)
    return lambda size: pipeline(batch_size=size, num_inference_steps=STEPS, output_type="np")


if __name__ == "__main__":
    main()
