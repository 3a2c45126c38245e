"""What one-step sampling costs beside a bare forward pass, and beside the teacher's own 50-step DDIM pipeline.

python benchmarks/sample.py [--teacher digits|FOLDER]
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from common import arguments, device, measure, open_teacher, quotient, save, table

from bootdiff.export.diffusers import export_student
from bootdiff.students import Student
from bootdiff.system.allocator import keep_freed_memory

STEPS = 50


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--repeats", type=int, default=101)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    teacher = open_teacher(options.teacher)
    student = Student.from_teacher(teacher)
    one_step, stock, ddim = student.one_step().to(device()), exported(student), ddim_pipeline(teacher)
    rows, figures = [], {}
    for size in options.batch_sizes:
        eps = torch.randn(size, *teacher.shape, device=device())

        def bare(eps: torch.Tensor = eps) -> None:
            with torch.no_grad():
                one_step.network(eps, one_step.own)

        fast = measure({"bare pass": bare, "one step": lambda eps=eps: one_step(eps)}, options.repeats)
        # As many one-step calls as the pipeline makes, so that both are as warm.
        slow = measure(
            {
                "one step": lambda eps=eps: [one_step(eps) for _ in range(STEPS)],
                "stock one-step pipeline": lambda size=size: [stock(size) for _ in range(STEPS)],
                f"DDIM {STEPS}": lambda size=size: ddim(size),
            },
            15,
        )
        single = {name: [s if name.startswith("DDIM") else s / STEPS for s in v] for name, v in slow.items()}
        rows.append(quotient(f"one step ÷ bare pass, batch {size}", fast["one step"], fast["bare pass"], "≤ 1.03"))
        for name, asked in (("one step", "≥ 45"), ("stock one-step pipeline", "reported")):
            rows.append(quotient(f"DDIM {STEPS} ÷ {name}, batch {size}", single[f"DDIM {STEPS}"], single[name], asked))
        figures[size] = {**fast, **single}
    print(f"{options.teacher}; {options.repeats} and 15 repeats, in turns\n")
    table(rows, ["ratio", "median", "spread", "asked for"])
    print()
    table(
        [[size, *(f"{1000 * sorted(s)[len(s) // 2]:.2f}" for s in f.values())] for size, f in figures.items()],
        ["batch", *(f"{name}, ms" for name in next(iter(figures.values())))],
    )
    save(options.output, {"teacher": options.teacher, "seconds": {str(k): v for k, v in figures.items()}})


def exported(student: Student):
    """The student as stock diffusers opens it."""
    from diffusers import DiffusionPipeline

    folder = Path(tempfile.mkdtemp()) / "student"
    export_student(student, folder, {})
    pipeline = DiffusionPipeline.from_pretrained(folder).to(device())
    pipeline.set_progress_bar_config(disable=True)
    return lambda size: pipeline(batch_size=size, output_type="np")


def ddim_pipeline(teacher):
    """diffusers' own DDIMPipeline with the teacher's network and scheduler."""
    from diffusers import DDIMPipeline, DDIMScheduler

    config = teacher.denoiser.scheduler_config
    pipeline = DDIMPipeline(teacher.denoiser.network, DDIMScheduler.from_config(config))
    pipeline.set_progress_bar_config(disable=True)
    return lambda size: pipeline(batch_size=size, num_inference_steps=STEPS, output_type="np")


if __name__ == "__main__":
    main()
