"""What a training step costs beside its bare network passes, and beside Algorithm 1 written down literally.

python benchmarks/step.py [--teacher digits|cifar|FOLDER] [--batch-size 128]
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from common import arguments, device, make_loop, measure, open_teacher, quotient, save, steps, table
from torch import Tensor, nn

from bootdiff.methods.boot import Boot
from bootdiff.schedules import expand
from bootdiff.students import Student
from bootdiff.system.allocator import keep_freed_memory
from bootdiff.teachers import Teacher

PERIOD = 4  # steps between boundary losses


def bare_passes(
    student: Student,
    teacher: Teacher,
    batch_size: int,
    boundaries: int,
    autocast: Callable[[], Any] = nullcontext,
) -> Callable[[], None]:
    """PERIOD steps' network passes and nothing else: raw networks, no loss, no update.

    A step has one student pass without gradients, one teacher pass, and one student pass forwards and backwards; a
    boundary has the last two.

    Args:
        autocast: makes the context that the networks run in.
    """
    eps = torch.randn(batch_size, *teacher.shape, device=device())
    t = torch.full((batch_size,), 500.0, device=device())
    grown, network = student.network.network, teacher.denoiser.network

    def forward(model: nn.Module) -> Tensor:
        with autocast():
            return model(eps, t).sample

    def learn() -> None:
        with torch.no_grad():
            forward(network)
        forward(grown).mean().backward()
        for parameter in grown.parameters():
            parameter.grad = None

    def passes() -> None:
        for step in range(PERIOD):
            with torch.no_grad():
                forward(grown)
            learn()
            if step < boundaries:
                learn()

    return passes


def literal(objective: Boot, batch_size: int, autocast: Callable[[], Any] = nullcontext) -> Callable[[], None]:
    """Algorithm 1 as it is printed: y_t on the gradient tape and detached afterwards, the boundary on every step.

    The same optimiser, average and clipping as in the loop.

    Args:
        autocast: makes the context that the networks run in.
    """
    student, teacher = objective.student.module, objective.teacher
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-4, weight_decay=0.0, fused=True)
    averages = [p.detach().clone() for p in student.parameters()]
    schedule, shape = teacher.schedule, (batch_size, *teacher.shape)

    def step() -> None:
        eps = torch.randn(shape, device=device())
        t = objective.t_min + (objective.t_max - objective.t_min) * torch.rand(batch_size, device=device())
        s = (t - objective.delta).clamp(min=objective.t_min)
        t_max = torch.full_like(t, objective.t_max)
        with autocast():
            y_t, y_s = student(eps, t), student(eps, s)
            alpha, sigma = (expand(v, eps) for v in schedule.alpha_sigma(t))
            with torch.no_grad():
                f_t = teacher.x0(alpha * y_t.detach() + sigma * eps, t)
                f_T = teacher.x0(schedule.start_scale(objective.t_max) * eps, t_max)
            kappa = expand(schedule.kappa(t, s), eps)
            target = (y_t + kappa * (f_t - y_t)).detach()
            edge = (student(eps, t_max) - f_T).square().mean()
            loss = (y_s - target).square().mean() + objective.boundary_weight * edge
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        torch._foreach_lerp_(averages, list(student.parameters()), 1e-4)

    def several() -> None:
        for _ in range(PERIOD):
            step()

    return several


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="a row with torch.compile")
    parser.add_argument("--bf16", action="store_true", help="a row with bfloat16 autocast")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    teacher, size = open_teacher(options.teacher), options.batch_size
    often = make_loop(teacher, size, boundary_every=1)[0]
    seldom, objective = make_loop(teacher, size, boundary_every=PERIOD)
    student = objective.student.module
    candidates: dict[str, Callable[[], object]] = {
        "bare, boundary on every 4th step": bare_passes(student, teacher, size, 1),
        "step, boundary on every 4th step": lambda: steps(seldom, PERIOD),
        "bare, boundary on every step": bare_passes(student, teacher, size, PERIOD),
        "step, boundary on every step": lambda: steps(often, PERIOD),
        "Algorithm 1, literally": literal(make_loop(teacher, size)[1], size),
    }
    if options.compile:
        # A teacher of its own: compiling is done in place, and would compile the other rows' too.
        compiled = make_loop(open_teacher(options.teacher), size, boundary_every=PERIOD, compile=True)[0]
        candidates["step with torch.compile"] = lambda: steps(compiled, PERIOD)
    # Last: accelerate knows one precision a process, and a float32 loop made later would take this one's away.
    if options.bf16:
        half = make_loop(teacher, size, boundary_every=PERIOD, mixed_precision="bf16")[0]
        candidates["step with bf16"] = lambda: steps(half, PERIOD)
    seconds = measure(candidates, options.repeats)

    print(f"{options.teacher}, {sum(p.numel() for p in student.parameters()):,} parameters, batch {size}; "
          f"{options.repeats} repeats of {PERIOD} steps, in turns\n")  # fmt: skip
    fast, slow = seconds["step, boundary on every 4th step"], seconds["Algorithm 1, literally"]
    rows = [
        quotient("step ÷ bare passes, boundary on every 4th step", fast, seconds["bare, boundary on every 4th step"],
                 "≤ 1.05"),
        quotient("step ÷ bare passes, boundary on every step", seconds["step, boundary on every step"],
                 seconds["bare, boundary on every step"], "≤ 1.05"),
        quotient("Algorithm 1 ÷ step, equal settings", slow, seconds["step, boundary on every step"], "≥ 1.0"),
        quotient("Algorithm 1 ÷ step, boundary on every 4th step", slow, fast, "≥ 1.4"),
    ]  # fmt: skip
    for name in ("step with bf16", "step with torch.compile"):
        if name in seconds:
            rows.append(quotient(f"step ÷ {name}", fast, seconds[name], "reported"))
    table(rows, ["ratio", "median", "spread", "asked for"])
    print()
    table([[n, f"{1000 * sorted(s)[len(s) // 2] / PERIOD:.2f}"] for n, s in seconds.items()], ["", "ms a step"])
    save(options.output, {"teacher": options.teacher, "batch_size": size, "seconds": seconds})


if __name__ == "__main__":
    main()
