"""What the siblings learn of analytic teachers, whose paths are known: trainings of seconds on two dimensions."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from bootdiff import Cosine, Gaussian, Linear, Mixture
from bootdiff.core.randomness import sample_noise
from bootdiff.distillation.distill import distill
from bootdiff.methods.registry import find_method
from bootdiff.solvers import ddim_step, even_times

FAST = {"watch_every": 0, "sample_every": 0, "log_every": 100, "lr_schedule": "cosine", "ema_decay": 0.99}


def settings(method: str, **words):
    return find_method(method).settings(**{**FAST, **words})


def test_consistency_distillation_of_an_exact_teacher_finds_the_closed_form_map(tmp_path):
    """g(x_t, t) = m + c (x_t − alpha m) / sqrt(alpha² c² + sigma²): the end of the Gaussian's path through x_t."""
    mean, deviation = 0.5, 0.5
    teacher = Gaussian(mean, deviation, (2,), Cosine())
    asked = settings("consistency", steps=900, batch_size=128, learning_rate=3e-3, grid=12, pairs=1024, pair_steps=8)
    student = distill(teacher, tmp_path / "run", asked, "consistency")
    errors = []
    for time in (0.2, 0.5, 0.8, student.t_max):
        t = torch.full((256,), time)
        alpha, sigma = (v.item() for v in teacher.schedule.alpha_sigma(t[:1]))
        x = alpha * (mean + deviation * sample_noise(1, 0, 256, (2,))) + sigma * sample_noise(2, 0, 256, (2,))
        exact = mean + deviation * (x - alpha * mean) / (alpha**2 * deviation**2 + sigma**2) ** 0.5
        with torch.no_grad():
            errors.append((student(x, t) - exact).square().mean().item())
    # The untrained student is the teacher's own x_0, which is off by the whole spread of the data at late times.
    assert max(errors) < 0.01, errors


def curvature(answer, schedule, low: float, high: float) -> float:
    """E ∫ |x_0(x_t, t) − x_end|² along an ODE's path by 64 DDIM steps: zero where every path is a straight line."""
    x, ends, batch = sample_noise(5, 0, 512, (2,)), [], 512
    times = even_times(64, low, high)
    x = schedule.start_scale(high) * x
    with torch.no_grad():
        for here, there in pairwise(times):
            t, s = torch.full((batch,), here), torch.full((batch,), there)
            ends.append(answer(x, t))
            x = ddim_step(x, ends[-1], t, s, schedule)
    return torch.stack([(end - ends[-1]).square().sum(1).mean() for end in ends]).mean().item()


@pytest.mark.parametrize("schedule", [Linear(), pytest.param(Cosine(), marks=pytest.mark.slow)])
def test_reflows_paths_are_straighter_after_a_round_and_no_less_straight_after_the_next(schedule, tmp_path):
    means = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    teacher = Mixture(means, 0.3, schedule=schedule)
    asked = settings("reflow", flows=2, one_call=False, steps=350, batch_size=256, learning_rate=3e-3, pairs=4096)
    student = distill(teacher, tmp_path / "run", asked.model_copy(update={"pair_steps": 16}), "reflow")
    from bootdiff import load_student

    first = load_student(tmp_path / "run/rounds/flow1/student-path", teacher)
    low, high = student.t_min, student.t_max
    zero, one, two = (curvature(f, schedule, low, high) for f in (teacher.x0, first, student))
    assert one < 0.5 * zero and two <= 1.02 * one, (zero, one, two)
