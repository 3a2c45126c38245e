"""BOOT's loss: zero at the exact path, hand-computed, thrifty with passes, and pure."""

import copy
from collections import Counter

import pytest
import torch
from torch import nn

from bootdiff.core.randomness import Draw
from bootdiff.losses.distances import SIMPLE
from bootdiff.losses.loss_weights import WEIGHTS, AdaptiveWeight, SignalWeight, UniformWeight
from bootdiff.losses.times import ProgressiveTime
from bootdiff.methods import Boot, Learner, Loss, Turn
from bootdiff.methods.boot import BootSettings
from bootdiff.schedules import Cosine, RectifiedFlow, VarianceExploding
from bootdiff.solvers import Euler, Heun, noisy
from bootdiff.students import Student
from bootdiff.teachers import CallableTeacher, Gaussian, load_teacher
from tiny_unet import save_teacher


def turn(step: int = 0, progress: float = 0.0, size: int = 32) -> Turn:
    return Turn("student", step, progress, Draw(0, step, "student", 0, size, size))


class ExactPath(nn.Module):
    """Stands in for a student: the Gaussian teacher's exact y_t."""

    def __init__(self, teacher: Gaussian, t_max: float) -> None:
        super().__init__()
        self.teacher, self.t_max = teacher, t_max

    def forward(self, eps, t, condition):
        return self.teacher.path(eps, t.double(), self.t_max).float()


def small_student(schedule=None, t_max=0.95) -> tuple[CallableTeacher, Student]:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(3)
            self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 4)

        def forward(self, x, timestep):
            return self.b(torch.tanh(self.a(torch.cat([x, timestep[:, None] / 999], 1))))

    teacher = CallableTeacher(Net(), schedule or Cosine(), "sample", (4,))
    return teacher, Student.from_teacher(teacher, 0.02, t_max)


def total_loss(objective, student, when) -> Loss:
    """The terms of a turn added up, and their values together."""
    terms = [term() for term in objective.losses({"student": student}, when, objective.source.batch(when.draw))]
    scalars = {name: value for term in terms for name, value in term.scalars.items()}
    return Loss(sum(term.total for term in terms), scalars)


def boot(teacher, student, **settings) -> Boot:
    return Boot(teacher, Learner(student, 1e-3), **settings)


@pytest.mark.parametrize("schedule", [Cosine(), RectifiedFlow(), VarianceExploding(0.05, 20)])
@pytest.mark.parametrize("solver, order", [(Euler(), 1), (Heun(), 2)], ids=["euler", "heun"])
def test_the_exact_path_zeroes_the_residual_as_delta_shrinks(schedule, solver, order):
    """r = (y_s − target)/kappa falls as delta^order on the exact path; the boundary error is zero."""
    teacher = Gaussian(shape=(4,), schedule=schedule)
    exact = ExactPath(teacher, 0.95)
    sizes = []
    for delta in (0.02, 0.01):
        objective = boot(teacher, small_student(schedule)[1], delta=delta, solver=solver, weight=SignalWeight())
        loss = total_loss(objective, exact, turn())
        sizes.append(float(loss.scalars["bootstrap"]) ** 0.5)
        assert float(loss.scalars["boundary"]) < 1e-10
    # Draws of t move with delta and float32 leaves its noise: the order to within half.
    assert sizes[0] / sizes[1] > 2 ** (order - 0.5)
    assert sizes[1] < 0.02


def test_the_loss_equals_the_formulas_written_out():
    """Eqs. 8, 9, 14 in plain loops over samples, for the three weights."""
    teacher, student = small_student()
    delta, beta, schedule = 0.1, 0.7, teacher.schedule
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.1
    for name, weight in WEIGHTS.items():
        objective = boot(teacher, student, delta=delta, weight=weight, boundary_weight=beta)
        batch = objective.source.batch(turn().draw)
        low = 0.02 + (delta if name != "uniform" else 0)
        t = low + (0.95 - low) * turn().draw.uniform("t")
        total = 0.0
        for i in range(32):
            eps, t_i = batch.noise[i : i + 1], t[i : i + 1]
            s_i = torch.clamp(t_i - delta, min=0.02)
            (a_t, o_t), (a_s, o_s) = schedule.alpha_sigma(t_i), schedule.alpha_sigma(s_i)
            kappa = 1 - (a_t * o_s) / (a_s * o_t)
            y_t = student(eps, t_i)
            target = y_t + kappa * (teacher.x0(a_t * y_t + o_t * eps, t_i) - y_t)
            r = (student(eps, s_i) - target) / kappa
            size = r.square().mean()
            per_sample = {
                "uniform": kappa**2 * size,
                "signal": size,
                "adaptive": kappa * size / (size / t_i**2 + 1e-3),
            }[name]
            edge = (teacher.x0(eps, torch.tensor([0.95])) - student(eps, torch.tensor([0.95]))).square().mean()
            total += (per_sample + beta * edge).item() / 32
        assert total_loss(objective, student, turn()).total.item() == pytest.approx(total, rel=2e-3)


class Counting(nn.Module):
    """Counts the samples that pass through, with and without gradients."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.seen = inner, Counter()

    def forward(self, *args):
        self.seen["grad" if torch.is_grad_enabled() else "no grad"] += len(args[0])
        self.seen["calls"] += 1
        return self.inner(*args)


@pytest.mark.parametrize("solver, teacher_calls", [(Euler(), 1), (Heun(), 2)], ids=["euler", "heun"])
@pytest.mark.parametrize("step, boundary", [(0, True), (1, False), (4, True)])
def test_no_pass_is_made_twice_and_none_carries_gradients_in_vain(solver, teacher_calls, step, boundary):
    teacher, student = small_student()
    objective = boot(teacher, student, solver=solver, boundary_every=4)
    counted, teacher.network = Counting(student), Counting(teacher.network)
    loss = total_loss(objective, counted, turn(step))
    assert counted.seen == {"no grad": 32, "grad": 64 if boundary else 32, "calls": 3 if boundary else 2}
    extra = 32 if boundary else 0  # in the same batch
    assert teacher.network.seen == {"no grad": 32 * teacher_calls + extra, "calls": teacher_calls}
    assert ("boundary" in loss.scalars) == boundary


def test_gradients_reach_the_student_only_and_the_target_stands_still(tiny):
    teacher = load_teacher(str(tiny))
    objective = Boot.from_settings(teacher, BootSettings(t_min=0.0, t_max=0.98))
    student = objective.student.module
    total_loss(objective, student, turn(size=4)).total.backward()
    assert all(p.grad is None for p in teacher.parameters())
    # At the start the student is its teacher, so the boundary's gradient is zero, and the path's is not.
    grads = [p.grad for p in student.parameters() if p.grad is not None]
    assert grads and any(float(g.abs().max()) > 0 for g in grads)


def test_a_stopped_target_gives_the_gradient_of_regression():
    teacher, student = small_student()
    objective = boot(teacher, student, boundary_weight=0.0)
    batch = objective.source.batch(turn().draw)
    total_loss(objective, student, turn()).total.backward()
    ours = [p.grad.clone() for p in student.parameters() if p.grad is not None]
    student.zero_grad()
    t = 0.02 + 0.93 * turn().draw.uniform("t")
    s = (t - 0.04).clamp(min=0.02)
    with torch.no_grad():
        y_t, eps = student(batch.noise, t), batch.noise
        f_t = teacher.x0(noisy(y_t, eps, t, teacher.schedule), t)
        target = Euler().step(teacher, y_t, f_t, eps, t, s, batch.condition)
    (student(batch.noise, s) - target).square().mean().backward()
    for a, parameter in zip(ours, [p for p in student.parameters() if p.grad is not None], strict=True):
        torch.testing.assert_close(a, parameter.grad, rtol=1e-4, atol=1e-7)


def test_the_same_seed_gives_the_same_bits():
    teacher, student = small_student()
    values = []
    for _ in range(2):
        objective = boot(teacher, copy.deepcopy(student))
        values.append(total_loss(objective, student, turn(7)).total)
    assert torch.equal(*values)
    other = total_loss(objective, student, turn(8)).total
    assert not torch.equal(values[0], other)


def test_progressive_time_walks_down():
    times = [ProgressiveTime()(turn(progress=p, size=2), 0.1, 0.9).tolist() for p in (0.0, 0.5, 1.0)]
    assert [t[0] for t in times] == pytest.approx([0.9, 0.5, 0.1])


@pytest.mark.parametrize("name, distance", SIMPLE.items())
def test_distances_have_their_degree_and_vanish_at_equality(name, distance):
    a, b = torch.randn(2, 6, 3, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(distance(a, a), torch.zeros(6))
    assert bool((distance(a, b) > 0).all())
    if name != "huber":
        torch.testing.assert_close(distance(3 * a, 3 * b), 3**distance.degree * distance(a, b))
    else:
        torch.testing.assert_close(
            distance(99 * a, 99 * b), 99 * (a - b).square().mean((1, 2)).sqrt(), rtol=1e-2, atol=0
        )


def test_singular_weights_stay_finite_over_their_times():
    t = torch.linspace(0.02 + 0.04, 0.95, 500)
    kappa = Cosine().kappa(t, t - 0.04)
    distance = kappa**2
    for weight in (UniformWeight(), SignalWeight(), AdaptiveWeight()):
        values = weight(distance, kappa, t, 2)
        assert bool(torch.isfinite(values).all()) and float(values.max()) < 1e3


@pytest.mark.parametrize("word, bound", [("teacher", 1), ("clip", 1), ("dynamic", 1), ("none", None)])
def test_targets_are_limited_as_the_setting_says(tmp_path, word, bound):
    folder = save_teacher(tmp_path / "t", prediction_type="epsilon", clip_sample=word == "teacher")
    teacher = load_teacher(str(folder))
    objective = Boot.from_settings(teacher, BootSettings(t_min=0.0, t_max=0.98, target_limit=word))
    f_t = objective.teacher.x0(torch.randn(8, 1, 8, 8), torch.full((8,), 0.9))
    assert float(f_t.abs().max()) <= bound + 1e-6 if bound else float(f_t.abs().max()) > 2
    if word == "dynamic":  # divided by the quantile, not cut off: few values lie at the very edge
        assert float((f_t.abs() > 0.999).float().mean()) < 0.05
