"""What the boundary loss (Eq. 9) changes: a student of eight Gaussians on a ring, with it and without it.

python examples/boundary.py [picture.png]      four minutes on two cores
"""

import math
import sys
import tempfile

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
SETTINGS |= {"solver": "heun", "delta": 0.07, "t_min": 0.01, "t_max": 0.98, "sample_every": 0, "log_every": 1000}


def distil(boundary_weight: float) -> bootdiff.Student:
    """A student trained with this much of the boundary loss."""
    words = bootdiff.BootSettings(**SETTINGS, boundary_weight=boundary_weight)
    return bootdiff.distill(TEACHER, tempfile.mkdtemp() + "/run", words)


eps = bootdiff.sample_noise(seed=0, start=0, stop=4000, shape=(2,))
truth = solve(TEACHER, eps, even_times(400, SETTINGS["t_min"], SETTINGS["t_max"]), Heun())
images = {"the teacher's path, solved": truth[-1]}
print("| boundary loss | boundary error | path error | modes kept | share in the least |\n|---|---|---|---|---|")
for name, weight in (("with", 1.0), ("without", 0.0)):
    student = distil(weight)
    images[f"student {name} it"] = student.sample(eps)
    edge = (student.sample(eps, t=SETTINGS["t_max"]) - truth[0]).square().mean() / VARIANCE
    error = (images[f"student {name} it"] - truth[-1]).square().mean() / VARIANCE
    near = torch.cdist(images[f"student {name} it"], TEACHER.means).min(1)
    modes = torch.bincount(near.indices[near.values < 3 * DEVIATION], minlength=8)
    print(f"| {name} | {edge:.2e} | {error:.2e} | {(modes > 100).sum()} of 8 | {modes.min() / len(eps):.3f} |")

figure, panels = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
for panel, (name, points) in zip(panels, images.items(), strict=True):
    panel.scatter(*points[:2000].T, s=1.5, c=torch.atan2(*eps[:2000].T.flip(0)), cmap="twilight")
    panel.set(title=name, aspect="equal", xlim=(-2.1, 2.1), ylim=(-2.1, 2.1))
figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "boundary.png", dpi=120)
