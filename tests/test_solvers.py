"""Solvers: their order against closed forms, and equality with diffusers' DDIM."""

import math

import pytest
import torch
from diffusers import DDIMScheduler

from bootdiff.schedules import BetaTable, Cosine, Linear, RectifiedFlow, VarianceExploding
from bootdiff.solvers import Euler, Heun, ddim, ddim_step, even_times, noisy, solve
from bootdiff.teachers import Gaussian

SCHEDULES = [Cosine(), Linear(), RectifiedFlow(), VarianceExploding(0.05, 20)]
EPS = torch.randn(64, 16, generator=torch.Generator().manual_seed(0)).double()
T_MIN, T_MAX = 0.02, 0.95


def path_error(teacher: Gaussian, solver, steps: int) -> float:
    y = solve(teacher, EPS, even_times(steps, T_MIN, T_MAX), solver)[-1]
    exact = teacher.path(EPS, torch.full((64,), T_MIN, dtype=torch.float64), T_MAX)
    return float((y.double() - exact).square().mean().sqrt())


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("solver, order", [(Euler(), 1), (Heun(), 2)], ids=["euler", "heun"])
def test_the_error_falls_with_the_solver_s_order(schedule, solver, order):
    teacher = Gaussian(schedule=schedule)
    coarse, fine = (path_error(teacher, solver, steps) for steps in (64, 128))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.12)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_the_exact_path_starts_at_the_boundary(schedule):
    teacher = Gaussian(schedule=schedule)
    t = torch.full((64,), T_MAX, dtype=torch.float64)
    x_T = schedule.start_scale(T_MAX) * EPS
    torch.testing.assert_close(teacher.path(EPS, t, T_MAX), teacher.x0(x_T, t), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_eq_5_is_eq_2_rewritten(schedule):
    """One Euler step of the Signal-ODE, made noisy again, is one DDIM step."""
    teacher = Gaussian(schedule=schedule)
    t, s = torch.full((64,), 0.7), torch.full((64,), 0.4)
    y, eps = EPS.float().flip(0), EPS.float()
    x_t = noisy(y, eps, t, schedule)
    f_t = teacher.x0(x_t, t)
    y_s = Euler().step(teacher, y, f_t, eps, t, s, None)
    torch.testing.assert_close(noisy(y_s, eps, s, schedule), ddim_step(x_t, f_t, t, s, schedule), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spacing", ["trailing", "leading"])
def test_ddim_equals_diffusers(spacing):
    """Not "linspace": there diffusers' DDIM steps to t − N/steps, which is not its own next timestep."""
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear", prediction_type="sample", clip_sample=False, timestep_spacing=spacing
    )
    teacher = Gaussian(shape=(1, 4, 4), schedule=BetaTable(scheduler.betas))
    scheduler.set_timesteps(10)
    eps = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    x = eps
    for timestep in scheduler.timesteps:
        x_0 = teacher.x0(x, teacher.schedule.time(timestep).expand(8))
        x = scheduler.step(x_0, timestep, x).prev_sample
    ours = ddim(teacher, eps, [float(teacher.schedule.time(t)) for t in scheduler.timesteps])
    if spacing == "trailing":  # the others stop at the last timestep's own noise level, a step before x_0
        torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours, x_0, rtol=1e-4, atol=1e-4)


def test_ddim_with_many_steps_reaches_the_data():
    x = ddim(Gaussian(), EPS.float(), even_times(200, 0.001, 0.999))
    assert float(x.mean()) == pytest.approx(1.0, abs=0.05)
    assert float(x.std()) == pytest.approx(0.5, abs=0.03)
