"""The methods without a second network: drifting and TBCM, on analytic teachers."""

from __future__ import annotations

import pytest
import torch

from bootdiff import BootdiffError, Cosine, Gaussian, load_teacher
from bootdiff.core.condition import Condition
from bootdiff.core.randomness import sample_noise
from bootdiff.data.sources import Batch
from bootdiff.distillation.distill import distill
from bootdiff.methods.drift import drift, together
from bootdiff.methods.registry import find_method
from bootdiff.training.planned import rehearsed
from test_siblings import NOISE, TEACHER, Calls, Source, exact_end, turn

FAST = {"watch_every": 0, "sample_every": 0, "log_every": 100, "lr_schedule": "cosine", "ema_decay": 0.99}


def settings(method: str, **words):
    return find_method(method).settings(**{**FAST, **words})


class Paths(Source):
    """Exact states of the Gaussian's paths."""

    kind = "trajectories"
    times = torch.tensor([0.9, 0.7, 0.5, 0.3, 0.1])

    def batch(self, draw):
        states = torch.stack([path(NOISE, time) for time in self.times.tolist()], dim=1)
        return Batch(NOISE, data=states[:, -1], states=states, times=self.times)


def path(eps, time: float):
    """y_t of the Gaussian's path from eps at 0.9."""
    ends = torch.full((len(eps),), 0.9)
    x = exact_end(TEACHER.schedule.start_scale(0.9) * eps.double(), ends, time).float()
    alpha, sigma = TEACHER.schedule.alpha_sigma(torch.tensor([time]))
    return (x - sigma * eps) / alpha


def tbcm(**words):
    kind = find_method("tbcm")
    asked = kind.settings(**{"steps": 9, "batch_size": 4, "t_min": 0.1, "t_max": 0.9, **words})
    return kind.build(TEACHER, asked, Paths())


def loss_of(asked, answer) -> float:
    (term,) = asked.losses(
        {"student": Calls(answer)}, turn(step=torch.tensor([0, 1, 2, 3]), t=torch.zeros(4)), Paths().batch(None)
    )
    return float(term().total.detach())


def ends(x, t, condition=None):
    return exact_end(x.double(), t, 0.1).float()


@pytest.mark.parametrize("solver, most", [("euler", 1e-3), ("heun", 1e-6)])
def test_tbcms_loss_is_zero_where_the_answers_are_the_ends_of_the_paths(solver, most):
    asked = tbcm(solver=solver, tangent_step=0.005)
    assert loss_of(asked, ends) < most
    assert loss_of(asked, lambda x, t, c: ends(x, t) + t[:, None]) > 0.1


def test_tbcms_target_is_the_answer_less_the_normalised_tangent():
    """With answers of slope k in the angle alone the tangent is k alpha, whatever the teacher's step is."""
    asked, k = tbcm(tangent_floor=0.5), 3.0
    angle = asked.teacher.schedule.lambda_
    alpha = asked.teacher.schedule.alpha_sigma(Paths.times[:4])[0]
    moved = k * alpha / (k * alpha + 0.5)  # |v| is the root mean square of two values that are alike
    found = loss_of(asked, lambda x, t, c: (k * angle(t).exp().atan())[:, None].expand_as(x))
    assert found == pytest.approx(float(moved.square().mean()), rel=1e-3)


def test_path_regressions_loss_is_zero_at_the_exact_states():
    kind = find_method("path")
    asked = kind.build(TEACHER, kind.settings(steps=9, batch_size=4, t_min=0.1, t_max=0.9), Paths())

    def loss(answer) -> float:
        at, batch = turn(step=torch.tensor([0, 1, 2, 4])), Paths().batch(None)
        (term,) = asked.losses({"student": Calls(answer)}, at, batch)
        return float(term().total.detach())

    def exact(eps, t, condition):
        return torch.cat([path(row[None], time) for row, time in zip(eps, t.tolist(), strict=True)])

    assert loss(exact) < 1e-9 and loss(lambda eps, t, condition: exact(eps, t, condition) + 0.5) > 0.2


@pytest.mark.slow
def test_tbcm_finds_the_closed_form_map(tmp_path):
    mean, deviation = 0.5, 0.5
    teacher = Gaussian(mean, deviation, (2,), Cosine())
    asked = settings("tbcm", steps=1200, batch_size=128, learning_rate=3e-3, pairs=1024, pair_steps=14)
    student = distill(teacher, tmp_path / "run", asked, "tbcm")
    eps = sample_noise(3, 0, 512, (2,))
    with torch.no_grad():
        images = student.sample(eps)
    exact = mean + deviation * eps
    assert (images - exact).square().mean() < 0.01


def test_the_mean_drift_is_zero_between_samples_of_one_distribution_and_points_to_the_other_one():
    generator = torch.Generator().manual_seed(0)
    same = torch.ones(64, 64, dtype=torch.bool)

    def mean_drift(shift: float, width: float):
        moves, spreads = [], []
        for _ in range(200):
            x = shift + width * torch.randn(64, 2, generator=generator)
            y = torch.randn(64, 2, generator=generator)
            move = drift(x, y, 0.5, same)
            moves.append(move.mean(0))
            spreads.append(((x - shift) * move).sum(1).mean())  # above zero where it widens
        return torch.stack(moves).mean(0), torch.stack(spreads).mean()

    still, spread = mean_drift(0.0, 1.0)
    assert float(still.abs().max()) < 0.01 and abs(float(spread)) < 0.025
    right, _ = mean_drift(-1.0, 1.0)
    assert float(right.min()) > 0.1
    assert float(mean_drift(0.0, 0.5)[1]) > 0.05 and float(mean_drift(0.0, 2.0)[1]) < -0.1


def test_samples_of_other_conditions_neither_attract_nor_repel():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(8, 3, generator=generator) for _ in range(2))
    labels = torch.tensor([0, 1, 0, 1, 1, 0, 0, 1])
    same = together(Condition({"labels": labels, "guidance": torch.rand(8)}), 8, torch.device("cpu"))
    assert torch.equal(same, labels[:, None] == labels[None])
    for radius in (0.7, 1e6):
        whole = drift(x, y, radius, same)
        for label in (0, 1):
            own = labels == label
            alone = drift(x[own], y[own], radius, torch.ones(4, 4, dtype=torch.bool))
            torch.testing.assert_close(whole[own], alone)


def test_drifting_brings_a_student_to_its_teacher_s_distribution(tmp_path):
    """Without the regression, so that nothing says which noise makes which sample."""
    teacher = Gaussian(0.5, 0.5, (2,), Cosine())
    asked = settings("drift", steps=500, batch_size=64, learning_rate=2e-3, pairs=2048, pair_steps=8, pair_weight=0)
    student = distill(teacher, tmp_path / "run", asked, "drift")
    with torch.no_grad():
        images = student.sample(sample_noise(3, 0, 2048, (2,)))
    assert (images.mean(0) - 0.5).abs().max() < 0.08 and (images.std(0) / 0.5 - 1).abs().max() < 0.15


@pytest.mark.parametrize("method, words, told", [
    ("drift", {"radii": [0.0]}, "radii"),
    ("drift", {"radii": []}, "radii"),
    ("drift", {"batch_size": 4, "gradient_accumulation": 4}, "leaves 1 in each"),
    ("drift", {"noise_levels": [0.9, 0.1]}, "LOW < HIGH"),
    ("drift", {"noise_levels": [5.0, 9.0]}, "LOW < HIGH"),
    ("tbcm", {"t_min": 0.1, "t_max": 0.4, "tangent_step": 0.5}, "tangent_step must be below"),
    ("dm", {"source": "pairs"}, "both are 0"),
    ("sid", {"critic_learning_rate": 0.5}, "critic_weight is 0"),
    ("tbcm", {"distance": "lpips"}, "differences, which are no pictures"),
    ("tbcm", {"distance": "digits"}, "differences, which are no pictures"),
])  # fmt: skip
def test_settings_that_mean_nothing_are_refused(method, words, told):
    with pytest.raises(BootdiffError, match=told):
        settings(method, **words)


@pytest.mark.parametrize("method", ["drift", "tbcm", "path", "dm"])
def test_a_plan_is_rehearsed(method):
    asked = find_method(method).settings(steps=60, batch_size=4, **({"critic_weight": 0.1} if method == "dm" else {}))
    asked = asked.model_copy(update={"t_min": 0.01, "t_max": 0.9})
    assert rehearsed(find_method(method), asked, load_teacher("digits")) is not None


@pytest.mark.parametrize("method", ["drift", "boot+drift", "tbcm", "path"])
def test_runs_of_a_real_network(tmp_path, method):
    teacher = load_teacher("digits-class" if method == "drift" else "digits")
    words = {
        "steps": 3,
        "batch_size": 8,
        "pairs": 8,
        "pair_steps": 2,
        **({"boot": {"steps": 2}} if "+" in method else {}),
    }
    student = distill(teacher, tmp_path / "run", settings(method, **words), method)
    assert (tmp_path / "run/student/model_index.json").is_file()
    assert student.kind == ("consistency" if method == "tbcm" else "path") and student.data_free


def test_tbcms_teacher_steps_down_from_many_states_too():
    """Where the stored states are closer to one another than the step is long."""
    seen = []

    class Recording(Gaussian):
        def x0(self, x_t, t, condition=Condition()):
            seen.append(t)
            return super().x0(x_t, t, condition)

    asked = settings("tbcm", tangent_step=0.2, t_min=0.1, t_max=0.4, trajectory_times=8, batch_size=64)
    teacher = Recording(0.0, 0.5, (2,), Cosine())
    method = find_method("tbcm")
    student = method.new_student(teacher, asked)
    times = torch.linspace(0.4, 0.1, 8)
    batch = Batch(torch.randn(64, 2), states=torch.randn(64, 8, 2), times=times)
    objective = method.build(teacher, asked, None, student)
    at = turn(step=torch.full((64,), 6), t=torch.rand(64))  # the last interval, from 0.143 to 0.1
    objective.losses({"student": student}, at, batch)
    assert seen and max(float(t.max()) for t in seen) <= float(times[6]) + 1e-6


def test_drift_refuses_a_teacher_through_which_gradients_vanish_and_one_image_a_process():
    half = load_teacher("digits", dtype="float16")
    with pytest.raises(BootdiffError, match="float16 teacher vanish"):
        settings("drift").check_teacher(half)
    teacher, method = load_teacher("digits"), find_method("drift")
    asked = method.settings(steps=3, batch_size=8, pairs=8)
    objective = method.build(teacher, asked, None, method.new_student(teacher, asked))
    with pytest.raises(BootdiffError, match="fewer processes"):
        objective.drifting({}, turn(), Batch(torch.zeros(1, 1, 8, 8)))


def test_gradients_of_the_drift_reach_the_student_alone():
    teacher = load_teacher("digits")
    method = find_method("drift")
    asked = method.settings(steps=3, batch_size=8, pairs=8)
    student = method.new_student(teacher, asked)

    class Pairs(Source):
        def batch(self, draw):
            return Batch(sample_noise(0, 0, 8, (1, 8, 8)), data=sample_noise(1, 0, 8, (1, 8, 8)))

    objective = method.build(teacher, asked, Pairs(), student)
    at = turn(step=torch.zeros(8, dtype=torch.long), noise=sample_noise(2, 0, 8, (1, 8, 8)))
    for term in objective.losses({"student": student}, at, Pairs().batch(None)):
        term().total.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert sum(float(p.grad.abs().sum()) for p in student.parameters() if p.grad is not None) > 0
