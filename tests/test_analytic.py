"""A student of an analytic teacher reaches the exact map: eight Gaussians on a ring."""

import math

import pytest
import torch

from bootdiff.core.randomness import sample_noise
from bootdiff.distillation.distill import distill
from bootdiff.methods.boot import BootSettings
from bootdiff.schedules import EDM, RectifiedFlow
from bootdiff.solvers import Heun, even_times, solve
from bootdiff.teachers import Gaussian, Mixture

RADIUS, DEVIATION, T_MIN, T_MAX = math.sqrt(2), math.sqrt(2) / 8, 0.01, 0.98
VARIANCE = RADIUS**2 / 2 + DEVIATION**2


def ring() -> Mixture:
    angles = torch.arange(8) * math.pi / 4
    return Mixture(RADIUS * torch.stack([angles.cos(), angles.sin()], dim=1), DEVIATION)


@pytest.mark.slow
def test_a_student_of_the_ring_reaches_the_exact_map_and_keeps_all_modes(tmp_path):
    """Path error at most 1e-3 of the data's variance; a minute and a half, the suite's longest test."""
    teacher = ring()
    settings = BootSettings(
        steps=9000,
        batch_size=256,
        learning_rate=2e-3,
        lr_schedule="cosine",
        ema_decay=0.999,
        solver="heun",
        delta=0.07,
        t_min=T_MIN,
        t_max=T_MAX,
        sample_every=0,
        log_every=1000,
        checkpoint_every=9000,
    )
    student = distill(teacher, tmp_path / "run", settings)
    eps = sample_noise(0, 0, 4000, (2,))
    truth = solve(teacher, eps, even_times(400, T_MIN, T_MAX), Heun())
    images = student.sample(eps)
    assert float((images - truth[-1]).square().mean()) < 1e-3 * VARIANCE
    assert float((student.sample(eps, t=T_MAX) - truth[0]).square().mean()) < 1e-4 * VARIANCE
    ours, theirs = (torch.bincount(torch.cdist(x, teacher.means).argmin(1), minlength=8) for x in (images, truth[-1]))
    assert int(ours.min()) > 400
    torch.testing.assert_close(ours / 4000, theirs / 4000, rtol=0, atol=0.01)


@pytest.mark.parametrize("schedule", [EDM(0.05, 20.0), RectifiedFlow()], ids=["edm", "flow"])
def test_an_analytic_teacher_of_any_shape_and_schedule_is_distilled(tmp_path, schedule):
    teacher = Gaussian(1.0, 0.5, shape=(1, 2, 2), schedule=schedule)
    settings = BootSettings(steps=600, batch_size=64, learning_rate=3e-3, lr_schedule="cosine", ema_decay=0.98,
                            delta=0.1, t_min=0.02, t_max=0.9, solver="heun", sample_every=0)  # fmt: skip
    student = distill(teacher, tmp_path / "run", settings)
    eps = sample_noise(0, 0, 500, (1, 2, 2))
    exact = teacher.path(eps, torch.full((500,), 0.02), 0.9)
    assert float((student.sample(eps) - exact).square().mean()) < 0.05 * 0.25
    assert float(student.sample(eps).mean()) == pytest.approx(1, abs=0.1)
