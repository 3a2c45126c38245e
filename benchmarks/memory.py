"""Peak memory of a training step beside what it cannot do without.

python benchmarks/memory.py [--teacher digits|cifar|FOLDER] [--batch-size 128]

On a CPU the allocator's own events are added up (torch.profiler); on a GPU its peak counter is read.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from common import arguments, device, make_loop, open_teacher, save, steps, table
from torch import nn

MIB = 2**20


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=128)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    teacher = open_teacher(options.teacher)
    loop, objective = make_loop(teacher, options.batch_size, boundary_every=1)
    student, learner = objective.student.module, loop.learners["student"]
    steps(loop, 2)  # the optimiser's moments are there after the first
    loop.meter.read()
    weights = size_of(student)
    needed = {
        "student's weights": weights,
        "gradients": weights,
        "optimiser": sum(v.nbytes for s in learner.optimiser.state.values() for v in s.values()),
        "averaged weights": sum(v.nbytes for average in learner.averages.values() for v in average.averages),
        "teacher": size_of(teacher),
        "one pass's activations": activations(student, options.batch_size, teacher.shape),
    }
    standing = sum(size for name, size in needed.items() if name not in ("gradients", "one pass's activations"))
    peak = standing + peak_of(lambda: steps(loop, 1))
    total = sum(needed.values())
    print(f"{options.teacher}, batch {options.batch_size}; a step with its boundary loss\n")
    rows = [[name, f"{size / MIB:.2f}"] for name, size in {**needed, "sum": total, "peak of a step": peak}.items()]
    table(rows, ["", "MiB"])
    print(f"\npeak ÷ sum: {peak / total:.3f} (asked for: ≤ 1.15)")
    save(options.output, {"teacher": options.teacher, "peak": peak, **needed})


def size_of(module: nn.Module) -> int:
    """Bytes of a module's parameters and buffers."""
    return sum(v.nbytes for v in (*module.parameters(), *module.buffers()))


def activations(student: nn.Module, batch_size: int, shape: tuple[int, ...]) -> int:
    """Bytes that a pass with gradients keeps for its way back."""
    eps = torch.randn(batch_size, *shape, device=device())
    t = torch.full((batch_size,), student.t_min, device=device())
    kept: list[torch.Tensor] = []
    return trace(lambda: kept.append(student(eps, t)))[-1]


def peak_of(call: Callable[[], object]) -> int:
    """The most bytes that a call has allocated at any time, beyond what was there before."""
    return max(trace(call))


def trace(call: Callable[[], object]) -> list[int]:
    """Bytes allocated since the start, after each allocation and each release."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return [torch.cuda.max_memory_allocated() - before, torch.cuda.memory_allocated() - before]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    here, levels = 0, []
    for event in sorted(events, key=lambda e: e.start_ns()):
        here += event.nbytes()
        levels.append(here)
    return levels


if __name__ == "__main__":
    main()
