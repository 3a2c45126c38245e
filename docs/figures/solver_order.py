"""How fast the Signal-ODE's error falls with the number of steps, on the Gaussian teacher whose path is known.

python docs/figures/solver_order.py
"""

import math

import torch

from bootdiff.schedules import Cosine, Linear, RectifiedFlow, VarianceExploding
from bootdiff.solvers import Euler, Heun, even_times, solve
from bootdiff.teachers import Gaussian

T_MIN, T_MAX = 0.02, 0.95
STEPS = (32, 64, 128, 256)


def rms_error(teacher: Gaussian, solver: Euler | Heun, steps: int) -> float:
    """Root mean square difference to the exact y at T_MIN."""
    eps = torch.randn(256, 16, generator=torch.Generator().manual_seed(0)).double()
    y = solve(teacher, eps, even_times(steps, T_MIN, T_MAX), solver)[-1]
    exact = teacher.path(eps, torch.full((256,), T_MIN, dtype=torch.float64), T_MAX)
    return float((y - exact).square().mean().sqrt())


print("| schedule | solver | " + " | ".join(f"{n} steps" for n in STEPS) + " | order |")
print("|---" * (len(STEPS) + 3) + "|")
for schedule in (Cosine(), Linear(), RectifiedFlow(), VarianceExploding(0.05, 20)):
    for solver in (Euler(), Heun()):
        errors = [rms_error(Gaussian(schedule=schedule), solver, n) for n in STEPS]
        cells = " | ".join(f"{e:.2e}" for e in errors)
        name = "DDIM" if solver.name == "euler" else "Heun"
        print(f"| {type(schedule).__name__} | {name} | {cells} | {math.log2(errors[-2] / errors[-1]):.2f} |")
