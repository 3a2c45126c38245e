"""What the boundary loss (Eq. 9) changes: students of eight Gaussians on a ring, with it and without it.

python docs/figures/boundary.py [picture.png]      six minutes on two cores
"""

import math
import sys
import tempfile
from typing import Any

import matplotlib
import torch

import bootdiff
from bootdiff.solvers import Heun, even_times, solve

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ANGLES = torch.arange(8) * math.pi / 4
RADIUS, DEVIATION = math.sqrt(2), math.sqrt(2) / 8
TEACHER = bootdiff.Mixture(RADIUS * torch.stack([ANGLES.cos(), ANGLES.sin()], dim=1), DEVIATION)
VARIANCE = RADIUS**2 / 2 + DEVIATION**2  # of the data, a dimension
SETTINGS = {"steps": 9000, "batch_size": 256, "learning_rate": 2e-3, "lr_schedule": "cosine", "ema_decay": 0.999}
SETTINGS |= {"solver": "heun", "delta": 0.07, "t_min": 0.01, "sample_every": 0, "log_every": 1000}
EPS = bootdiff.sample_noise(seed=0, start=0, stop=4000, shape=(2,))


def distil(t_max: float, boundary_weight: float) -> bootdiff.Student:
    """A student trained with this much of the boundary loss."""
    words = bootdiff.BootSettings(**SETTINGS, t_max=t_max, boundary_weight=boundary_weight)
    return bootdiff.distill(TEACHER, tempfile.mkdtemp() + "/run", words)


def draw(panel: plt.Axes, name: str, points: torch.Tensor) -> None:
    """Points in the colour of their noise's angle."""
    panel.scatter(*points[:2000].T, s=1.5, c=torch.atan2(*EPS[:2000].T.flip(0)), cmap="twilight")
    panel.set(title=name, aspect="equal", xlim=(-2.1, 2.1), ylim=(-2.1, 2.1))


figure, panels = plt.subplots(2, 3, figsize=(10, 6.6), layout="constrained")
print("| t_max | boundary loss | boundary error | path error | modes kept | share in the least |")
print("|---|---|---|---|---|---|")
for row, t_max in zip(panels, (0.98, 0.7), strict=True):
    truth = solve(TEACHER, EPS, even_times(400, SETTINGS["t_min"], t_max), Heun())
    draw(row[0], f"the path solved from t = {t_max}", truth[-1])
    for panel, (name, weight) in zip(row[1:], {"with": 1.0, "without": 0.0}.items(), strict=True):
        student: Any = distil(t_max, weight)
        images = student.sample(EPS)
        edge = (student.sample(EPS, t=t_max) - truth[0]).square().mean() / VARIANCE
        error = (images - truth[-1]).square().mean() / VARIANCE
        near = torch.cdist(images, TEACHER.means).min(1)
        modes = torch.bincount(near.indices[near.values < 3 * DEVIATION], minlength=8)
        print(f"| {t_max} | {name} | {edge:.2e} | {error:.2e} | {(modes > 100).sum()} | {modes.min() / len(EPS):.3f} |")
        draw(panel, f"student {name} boundary loss", images)
figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "boundary.png", dpi=110)
