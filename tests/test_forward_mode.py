"""Eq. 7, the residual of the Signal-ODE: zero on the exact path, its value, its gradients, its passes, its refusals."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bootdiff.core.errors import BootdiffError
from bootdiff.core.forward_mode import with_derivative
from bootdiff.core.passes import PassCounter, counting
from bootdiff.core.randomness import Draw, sample_noise
from bootdiff.methods import Boot, Learner, Turn
from bootdiff.methods.boot import BootSettings
from bootdiff.schedules import EDM, BetaTable, Cosine, Linear, RectifiedFlow, VarianceExploding
from bootdiff.solvers import noisy
from bootdiff.students import Student
from bootdiff.teachers import CallableTeacher, Gaussian, load_teacher
from family_table import COUNT, conditions, disturbed, opened
from tiny_unet import save_teacher

DELTA = 0.1
ATTENTION = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}


def turn(size: int = 32, step: int = 0) -> Turn:
    return Turn("student", step, 0.0, Draw(0, step, "student", 0, size, size))


class Net(nn.Module):
    """A teacher's network of four values whose every answer depends on its time."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 4)

    def forward(self, x, timestep):
        return self.b(torch.tanh(self.a(torch.cat([x, timestep[:, None] / 999], 1))))


def objective(full: bool = False, **settings) -> tuple[Boot, Student]:
    teacher = CallableTeacher(Net(), Cosine(), "sample", (4,))
    student = Student.from_teacher(teacher, 0.02, 0.95)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.005 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5))
    return Boot(teacher, Learner(student, 1e-3), delta=DELTA, solver=None, full=full, **settings), student


def bootstrap(objective: Boot, student: nn.Module, when: Turn):
    batch = objective.source.batch(when.draw)
    return objective.losses({"student": student}, when, batch)[0]()


@pytest.mark.parametrize(
    "schedule",
    [
        *(Cosine(), Linear(), RectifiedFlow(3.0), VarianceExploding(0.05, 20), EDM(0.002, 80.0)),
        BetaTable(torch.linspace(1e-4, 0.02, 1000)),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_the_slope_of_lambda_is_its_derivative(schedule):
    t = torch.tensor([0.1234, 0.5678, 0.9012])
    low, high = schedule.lambda_(t.double() - 1e-7), schedule.lambda_(t.double() + 1e-7)
    torch.testing.assert_close(schedule.slope(t), ((high - low) / 2e-7).float(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("schedule", [Cosine(), RectifiedFlow(), VarianceExploding(0.05, 20)])
def test_the_exact_path_has_no_residual_at_all(schedule):
    """Unlike a difference over delta, whose residual falls with delta only."""
    teacher = Gaussian(shape=(4,), schedule=schedule)

    class ExactPath(nn.Module):
        def forward(self, eps, t, condition):
            return teacher.path(eps.double(), t.double(), 0.95).float()

    student = Student.from_teacher(CallableTeacher(Net(), schedule, "sample", (4,)), 0.02, 0.95)
    exact = Boot(teacher, Learner(student, 1e-3), delta=DELTA, solver=None)
    loss = bootstrap(exact, ExactPath(), turn())
    assert float(loss.total) < 1e-9
    assert float(loss.by_time["residual"][1].max()) < 1e-4


def by_hand(objective: Boot, student: nn.Module, parameters: dict, full: bool) -> torch.Tensor:
    """Eq. 7 in float64 with a central difference in the place of forward mode, times the constant delta²."""
    batch, schedule = objective.source.batch(turn().draw), objective.teacher.schedule
    eps = batch.noise
    t = 0.02 + 0.93 * turn().draw.uniform("t")

    def answer(at, values=parameters):
        return torch.func.functional_call(student, values, (eps, at))

    y, slope = answer(t), (answer(t + 1e-4) - answer(t - 1e-4)) / 2e-4
    x = noisy(y, eps, t, schedule)
    f = objective.teacher.x0(x if full else x.detach(), t)
    rate = schedule.slope(t)[:, None]
    return DELTA**2 * (slope + rate * (f - y)).square().mean()


@pytest.mark.parametrize("full", [False, True])
def test_the_value_and_the_gradient_are_those_of_the_formula(full):
    ours, student = objective(full, boundary_weight=0.0)
    loss = bootstrap(ours, student, turn()).total
    loss.backward()
    gradients = {name: p.grad for name, p in student.named_parameters() if p.grad is not None}
    leaves = {name: p.detach().clone().requires_grad_() for name, p in student.named_parameters()}
    expected = by_hand(ours, student, leaves, full)
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=5e-3, atol=0)
    for name, gradient in gradients.items():
        scale = float(leaves[name].grad.abs().max())
        torch.testing.assert_close(gradient, leaves[name].grad, rtol=2e-2, atol=5e-3 * scale)


def test_whether_gradients_pass_through_the_teacher_makes_a_difference():
    gradients = []
    for full in (False, True):
        ours, student = objective(full, boundary_weight=0.0)
        bootstrap(ours, student, turn()).total.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None]))
    assert float((gradients[0] - gradients[1]).norm()) > 0.003 * float(gradients[0].norm())


def test_the_derivative_of_a_real_network_is_the_limit_of_its_differences(tmp_path):
    """Convolutions, norms and attention carry tangents, and gradients pass through them."""
    teacher = load_teacher(str(save_teacher(tmp_path / "t", unet=ATTENTION)))
    student = Student.from_teacher(teacher, 0.02, 0.9)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    eps, t = torch.randn(3, *teacher.shape), torch.tensor([0.1, 0.4, 0.8])
    value, slope = with_derivative(lambda at: student(eps, at), t)
    with torch.no_grad():
        torch.testing.assert_close(value, student(eps, t), rtol=1e-4, atol=1e-4)
        difference = (student(eps, t + 1e-4) - student(eps, t - 1e-4)) / 2e-4
    assert float((slope.detach() - difference).norm()) < 0.02 * float(difference.norm())
    slope.square().mean().backward()
    assert all(bool(p.grad.isfinite().all()) for p in student.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", ["classes", "dit", "sd", "sdxl", "if", "if stage 2", "sd3", "flux"])
def test_the_students_of_every_family_have_derivatives(tmp_path, name):
    _, teacher = opened(name, tmp_path)
    student, condition = disturbed(Student.from_teacher(teacher)), conditions(teacher)
    eps, t = sample_noise(0, 0, COUNT, teacher.shape), torch.tensor([0.3, 0.7])
    value, slope = with_derivative(lambda at: student(eps, at, condition), t)
    with torch.no_grad():
        low, high = (student(eps, t + step, condition) for step in (-2e-4, 2e-4))
    torch.testing.assert_close(value, (low + high) / 2, rtol=1e-2, atol=1e-2 * float(value.detach().abs().max()))
    difference = (high - low) / 4e-4
    assert float((slope.detach() - difference).norm()) < 0.05 * float(difference.norm()) > 0
    slope.square().mean().backward()
    gradients = [p.grad for p in student.parameters() if p.grad is not None]
    assert gradients and all(bool(gradient.isfinite().all()) for gradient in gradients)


def test_a_call_with_a_tangent_counts_as_two():
    ours, student = objective(boundary_weight=0.0)
    counter = PassCounter(ours.teacher.network)
    counter.add("teacher", ours.teacher.network)
    counter.add("student", student.network)
    with counter.attached(), counting():
        bootstrap(ours, student, turn(8)).total.backward()
    assert counter.counted() == {"teacher": 8, "student": 2 * 8 + 2 * 2 * 8}


@pytest.mark.parametrize("schedule, kind", [(RectifiedFlow(), "flow_prediction"), (Cosine(), "sample")])
def test_where_the_noise_has_no_signal_left_times_stay_below(schedule, kind):
    teacher = CallableTeacher(Net(), schedule, kind, (4,))
    ours = Boot(teacher, Learner(Student.from_teacher(teacher, 0.02, 1.0), 1e-3), delta=DELTA, solver=None)
    assert float(ours.draw_times(turn(500)).max()) <= 1 - DELTA
    assert bool(bootstrap(ours, ours.student.module, turn(500)).total.isfinite())


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"jvp_full": True}, "jvp_full is for solver=jvp"),
        ({"solver": "jvp", "gradient_checkpointing": True}, "gradient_checkpointing"),
        ({"solver": "jvp", "compile": True}, "compile"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, words):
    with pytest.raises(BootdiffError, match=words):
        BootSettings(**settings)


def test_teachers_without_a_derivative_are_refused(tmp_path):
    integers = CallableTeacher(Net(), Cosine(), "sample", (4,), integer_timesteps=True)
    with pytest.raises(BootdiffError, match="told its time in integers; take solver=euler"):
        Boot.from_settings(integers, BootSettings(solver="jvp"))
    half = CallableTeacher(Net().half(), Cosine(), "sample", (4,))
    with pytest.raises(BootdiffError, match="float16"):
        Boot.from_settings(half, BootSettings(solver="jvp", jvp_full=True))


def test_an_operation_without_tangents_is_one_line():
    layer = nn.MultiheadAttention(8, 2, batch_first=True)

    def function(t):
        x = t[:, None, None] * torch.ones(2, 3, 8)
        return layer(x, x, x, need_weights=False)[0]

    with pytest.raises(BootdiffError, match=r"forward mode.*take solver=euler"):
        with_derivative(function, torch.tensor([0.2, 0.7]))


@pytest.mark.parametrize("softmax", [lambda x: torch.softmax(x, -1, torch.float32), lambda x: x.softmax(-1)])
def test_softmax_within_is_softmax(softmax):
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    value, _ = with_derivative(lambda t: softmax(x * t[:, None].to(x)), torch.ones(3))
    expected = softmax(x)
    assert value.dtype == expected.dtype
    torch.testing.assert_close(value, expected, rtol=2e-2, atol=1e-2)
