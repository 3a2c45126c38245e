"""Schedules: identities, round trips, and equality with diffusers."""

import pytest
import torch
from diffusers import DDPMScheduler, EDMEulerScheduler

from bootdiff.core.errors import BootdiffError
from bootdiff.schedules import (
    EDM,
    BetaTable,
    Cosine,
    Linear,
    RectifiedFlow,
    SigmaTime,
    VarianceExploding,
    check_times,
)

TIMES = torch.linspace(0.01, 0.97, 25)
EXPLODING = [VarianceExploding(), EDM(), EDM(rho=None), SigmaTime(0.01, 50)]
ALL = [Cosine(), Linear(), RectifiedFlow(), *EXPLODING, BetaTable(DDPMScheduler().betas)]


@pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)
def test_lambda_is_the_log_ratio_and_grows(schedule):
    alpha, sigma = schedule.split(schedule.lambda_(TIMES))
    torch.testing.assert_close(torch.log(sigma / alpha), schedule.lambda_(TIMES), rtol=1e-9, atol=1e-9)
    assert bool((schedule.lambda_(TIMES).diff() > 0).all())


@pytest.mark.parametrize("schedule", [Cosine(), Linear(), BetaTable(DDPMScheduler().betas)])
def test_variance_is_preserved(schedule):
    alpha, sigma = schedule.split(schedule.lambda_(TIMES))
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(25, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)
def test_kappa_equals_its_definition_and_keeps_digits_for_tiny_steps(schedule):
    t, s = TIMES, TIMES - 1e-5
    (alpha_t, sigma_t), (alpha_s, sigma_s) = (schedule.split(schedule.lambda_(v)) for v in (t, s))
    expected = 1 - (alpha_t * sigma_s) / (alpha_s * sigma_t)
    torch.testing.assert_close(schedule.kappa(t, s).double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(schedule.kappa(t, t), torch.zeros(25), rtol=0, atol=0)


def test_cosine_and_flow_are_their_formulas():
    alpha, sigma = Cosine().alpha_sigma(TIMES)
    torch.testing.assert_close(alpha, torch.cos(TIMES * torch.pi / 2), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sigma, torch.sin(TIMES * torch.pi / 2), rtol=1e-5, atol=1e-6)
    alpha, sigma = RectifiedFlow().alpha_sigma(TIMES)
    torch.testing.assert_close(alpha, 1 - TIMES, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sigma, TIMES, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
def test_a_table_equals_diffusers_at_every_timestep(name):
    scheduler = DDPMScheduler(beta_schedule=name)
    table = BetaTable(scheduler.betas)
    t = table.time(torch.arange(1000))
    alpha, _ = table.split(table.lambda_(t.double()))
    expected = torch.cumprod(1 - scheduler.betas.double(), 0).sqrt()
    torch.testing.assert_close(alpha, expected, rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(table.timestep(t), torch.arange(1000.0), rtol=0, atol=1e-4)


def test_a_table_ending_in_zero_snr_stays_finite_before_its_end():
    table = BetaTable(DDPMScheduler(rescale_betas_zero_snr=True).betas)
    assert bool(torch.isfinite(table.lambda_(torch.linspace(0, 0.998, 50))).all())


def test_ve_starts_at_the_sigma_of_t_max():
    schedule = VarianceExploding(0.002, 80)
    assert schedule.start_scale(1.0) == pytest.approx(80, rel=1e-6)
    assert Cosine().start_scale(0.98) == 1


@pytest.mark.parametrize("low, high", [(0.5, 0.5), (0.9, 0.1), (-0.1, 0.9), (0.0, 1.1)])
def test_impossible_times_are_refused(low, high):
    with pytest.raises(BootdiffError, match="t_min"):
        check_times(low, high)


@pytest.mark.parametrize("betas", [[0.1], [0.1, 0.0], [0.1, 1.5], [0.1, float("nan")]])
def test_impossible_betas_are_refused(betas):
    with pytest.raises(BootdiffError, match="beta"):
        BetaTable(betas)


@pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)
def test_times_and_timesteps_round_trip(schedule):
    torch.testing.assert_close(schedule.time(schedule.timestep(TIMES)), TIMES, rtol=0, atol=2e-6)


@pytest.mark.parametrize("spacing", ["karras", "exponential"])
def test_edm_visits_diffusers_noise_levels_and_tells_them_alike(spacing):
    scheduler = EDMEulerScheduler(sigma_min=0.01, sigma_max=50.0, rho=5.0, sigma_schedule=spacing)
    scheduler.set_timesteps(20)
    schedule = EDM(0.01, 50.0, 5.0 if spacing == "karras" else None)
    t = torch.linspace(1, 0, 20)
    torch.testing.assert_close(schedule.alpha_sigma(t)[1], scheduler.sigmas[:-1].float(), rtol=1e-5, atol=0)
    torch.testing.assert_close(schedule.timestep(t), scheduler.timesteps.float(), rtol=1e-5, atol=1e-6)


def test_a_score_model_is_told_sigma():
    schedule = SigmaTime(0.01, 50)
    torch.testing.assert_close(schedule.timestep(TIMES), schedule.alpha_sigma(TIMES)[1])


def test_integer_timesteps_are_the_nearest():
    table = BetaTable(DDPMScheduler().betas).with_integer_timesteps()
    steps = table.timestep(torch.tensor([0.0, 0.4996 / 999, 0.5004 / 999, 0.9, 1.0]))
    assert steps.dtype == torch.int64 and steps.tolist() == [0, 0, 1, 899, 999]
    assert not BetaTable(DDPMScheduler().betas).integer_timesteps


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (2.0, 1.0), (-1.0, 1.0), (1.0, float("inf"))])
def test_impossible_noise_levels_are_refused(low, high):
    with pytest.raises(BootdiffError, match="sigma_min"):
        VarianceExploding(low, high)
