"""Every kind of student: what it begins as, how it is read, saved, folded, and asked as a teacher."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.testing import assert_close

from bootdiff import BootdiffError, CallableTeacher, Classes, Cosine, Gaussian, load_student, load_teacher, save_student
from bootdiff.core.condition import Condition
from bootdiff.core.randomness import sample_noise
from bootdiff.solvers import ddim
from bootdiff.students.boundary import Naive, Skip
from bootdiff.students.consistency import ConsistencyStudent
from bootdiff.students.denoising import DenoisingStudent
from bootdiff.students.jump import JumpStudent
from bootdiff.students.kinds import KINDS, student_kind
from bootdiff.students.path import PathStudent
from bootdiff.students.trajectory import TrajectoryStudent
from tiny_pipelines import save_class_unet

ALL = sorted(KINDS)
FOLDED = [kind for kind in ALL if kind != "trajectory"]


@pytest.fixture(scope="module", params=["pipeline", "module"])
def teacher(request, tmp_path_factory):
    if request.param == "pipeline":
        return load_teacher("digits").denoiser
    torch.manual_seed(0)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = torch.nn.Conv2d(2, 8, 3, padding=1), torch.nn.Conv2d(8, 1, 3, padding=1)

        def forward(self, x_t, timestep):
            time = (timestep / 1000)[:, None, None, None].expand(-1, 1, *x_t.shape[2:])
            return self.last(torch.nn.functional.silu(self.first(torch.cat([x_t, time], 1))))

    return CallableTeacher(Net(), Cosine(), "epsilon", (1, 8, 8))


def shaken(student):
    """The student with other weights, so that every input matters."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return student.eval()


def eps_of(teacher, count=3):
    return sample_noise(0, 0, count, teacher.shape)


@pytest.mark.parametrize("kind", ALL)
def test_a_student_is_its_teacher_at_first(kind, teacher):
    student, eps = student_kind(kind).from_teacher(teacher), eps_of(teacher)
    x_T = teacher.schedule.start_scale(student.t_max) * eps
    x_0 = teacher.x0(x_T, torch.full((3,), student.t_max))
    if kind == "consistency":  # held at the sample itself near t_min, and next to nothing of that at t_max
        skip, out = student.boundary.factors(torch.tensor([student.t_max]), student.t_min, teacher.schedule)
        x_0 = skip.float() * x_T + out.float() * x_0
    assert_close(student.image(eps), x_0, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", FOLDED)
def test_a_folded_student_makes_the_same_image(kind, teacher):
    student, eps = shaken(student_kind(kind).from_teacher(teacher)), eps_of(teacher)
    assert_close(student.one_step()(eps), student.sample(eps), atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", ALL)
def test_a_student_is_read_back_as_the_kind_that_it_was(kind, teacher, tmp_path):
    student, eps = shaken(student_kind(kind).from_teacher(teacher, 0.05, 0.8)), eps_of(teacher)
    if kind == "consistency":
        student.boundary = Skip(sigma_data=0.8)
    save_student(student, tmp_path / "student")
    again = load_student(tmp_path / "student", teacher)
    assert type(again) is type(student) and (again.t_min, again.t_max) == (0.05, 0.8)
    assert torch.equal(again.sample(eps), student.sample(eps))
    assert again.facts == student.facts


def test_a_denoising_student_reads_its_network_at_every_time_as_its_teacher_does(teacher):
    student, eps = DenoisingStudent.from_teacher(teacher), eps_of(teacher)
    t = torch.tensor([0.2, 0.5, 0.7])
    assert_close(student(eps, t), teacher.x0(eps, t), atol=1e-5, rtol=1e-4)
    own = student.as_teacher()
    assert_close(own.x0(eps, t), teacher.x0(eps, t), atol=1e-5, rtol=1e-4)
    assert not any(p.requires_grad for p in own.parameters())
    assert torch.equal(ddim(own, eps, [0.8, 0.4, 0.1]), ddim(student.as_teacher(), eps, [0.8, 0.4, 0.1]))


def test_a_teacher_made_of_a_student_does_not_follow_its_training(teacher):
    student, eps, t = DenoisingStudent.from_teacher(teacher), eps_of(teacher), torch.full((3,), 0.5)
    own = student.as_teacher()
    before = own.x0(eps, t)
    shaken(student)
    assert torch.equal(own.x0(eps, t), before) and not torch.allclose(student(eps, t), before)


def test_a_jump_is_a_ddim_step_at_first_and_a_teacher_on_its_grid(teacher):
    student, eps = JumpStudent.from_teacher(teacher), eps_of(teacher)
    grid = [0.8, 0.4, 0.1]
    assert_close(ddim(student.as_teacher(grid), eps, grid), ddim(teacher, eps, grid), atol=1e-4, rtol=1e-4)
    student = shaken(student)
    here, there = torch.full((3,), 0.8), torch.full((3,), 0.4)
    first = student.jump(eps, here, there)
    assert_close(ddim(student.as_teacher(grid), eps, grid[:1]), student(eps, here, there))
    assert not torch.allclose(first, student.jump(eps, here, torch.full((3,), 0.1)))
    with pytest.raises(BootdiffError, match="grid"):
        student.as_teacher()


@pytest.mark.parametrize("schedule", [Cosine(), None])
def test_a_consistency_student_is_the_sample_itself_at_the_boundary(schedule, teacher):
    source = teacher if schedule is None else Gaussian(0.5, 0.5, (4,), schedule)
    student = shaken(ConsistencyStudent.from_teacher(source, 0.02, 0.8))
    x, t = sample_noise(0, 0, 3, source.shape), torch.full((3,), 0.02)
    alpha = float(source.schedule.alpha_sigma(t[:1])[0])
    assert_close(student(x, t), x / alpha, atol=1e-5, rtol=1e-5)
    student.boundary = Naive()
    assert not torch.allclose(student(x, t), x / alpha, atol=1e-3)


def test_a_path_student_is_no_teacher():
    teacher = Gaussian(0.5, 0.5, (4,))
    with pytest.raises(BootdiffError, match="answers for noise only"):
        PathStudent.from_teacher(teacher).as_teacher()


@pytest.mark.parametrize("kind", ALL)
def test_every_kind_takes_classes_and_a_range_of_weights(kind, tmp_path):
    teacher = load_teacher(str(save_class_unet(tmp_path / "unet")))
    student = shaken(student_kind(kind).from_teacher(teacher, guidance=(1.0, 4.0)))
    condition = Classes([0, 1]).listed(0, 0, 3).add(guidance=torch.tensor([1.0, 2.0, 4.0]))
    eps = eps_of(teacher)
    made = student.sample(eps, condition)
    other = Classes([1, 0]).listed(0, 0, 3).add(guidance=torch.tensor([1.0, 2.0, 4.0]))
    assert not torch.allclose(made, student.sample(eps, other))
    weights = Condition({**condition, "guidance": torch.tensor([4.0, 2.0, 4.0])})
    assert not torch.allclose(made[0], student.sample(eps, weights)[0])
    if kind in FOLDED:
        folded = student.one_step(2.0)(eps[1:2], condition.index(slice(1, 2)))
        assert_close(folded, made[1:2], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(
    "words, message",
    [
        ({"kind": "pth"}, "kind of student 'pth' is not known"),
        ({"kind": "consistency", "facts": {"boundary": {"name": "skp"}}}, "boundary 'skp' is not known"),
        ({"kind": "consistency", "facts": {"boundary": {"name": "skip", "sigma": 1}}}, "has no such numbers"),
        ({"kind": "consistency", "facts": {"boundary": {"name": "skip", "sigma_data": -1}}}, "positive numbers"),
        (
            {"kind": "consistency", "facts": {"boundary": 5}},
            "'facts': a boundary has a name and numbers",
        ),
        (
            {"kind": "consistency", "facts": {"boundary": {"name": "skip", "sigma_data": 1e200}}},
            "positive numbers from",
        ),
        ({"kind": "trajectory", "facts": {"times": 3}}, "should hold its times"),
        ({"kind": "trajectory", "facts": {"times": [float("inf"), 0.1]}}, "should hold its times"),
        ({"kind": "trajectory", "facts": {"times": [0.5] * 100_000}}, "at most 1,000 times"),
        ({"kind": "trajectory", "facts": {"times": [0.5, 0.6]}}, "times should fall from t_max"),
    ],
)
def test_a_card_of_no_kind_is_refused_in_one_line(words, message, teacher, tmp_path):
    import json

    kind = "path" if words["kind"] == "pth" else words["kind"]
    save_student(student_kind(kind).from_teacher(teacher), tmp_path / "student")
    path = tmp_path / "student" / "bootdiff.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **words}))
    with pytest.raises(BootdiffError, match=message) as error:
        load_student(tmp_path / "student", teacher)
    assert "\n" not in str(error.value)


def test_a_trajectory_is_a_path_students_states_until_its_layers_mix_them(teacher):
    student, eps = TrajectoryStudent.from_teacher(teacher, 0.05, 0.8), eps_of(teacher)
    student.answer_at([0.8, 0.6, 0.3, 0.05])
    plain = PathStudent(student.network, teacher, 0.05, 0.8, student.call)
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if "mixing" not in name:
                parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
        states = student(eps)
        assert states.shape == (3, 4, *teacher.shape)
        for number, time in enumerate(student.times):
            assert_close(states[:, number], plain(eps, torch.full((3,), time)), atol=1e-4, rtol=1e-4)
        shaken(student)
        other = student(eps)
    assert not torch.allclose(other[:, 0], plain(eps, torch.full((3,), 0.8)), atol=1e-3)  # the times see each other
    assert_close(student(eps, torch.tensor([0.05, 0.8, 0.35])), torch.stack([other[0, 3], other[1, 0], other[2, 2]]))
    assert torch.equal(student.sample(eps), student.limit(other[:, 3]))


def test_a_trajectory_is_the_same_however_its_batch_is_split_and_saved_with_its_times(teacher, tmp_path):
    student = TrajectoryStudent.from_teacher(teacher, 0.05, 0.8)
    student.answer_at([0.8, 0.4, 0.05])
    eps = eps_of(shaken(student), 4)
    with torch.no_grad():
        assert_close(torch.cat([student(eps[:1]), student(eps[1:])]), student(eps), atol=1e-5, rtol=1e-4)
    save_student(student, tmp_path / "student")
    again = load_student(tmp_path / "student", teacher)
    assert again.times == student.times and torch.equal(again.sample(eps), student.sample(eps))
    assert torch.equal(copy.deepcopy(student).sample(eps), student.sample(eps))
    with pytest.raises(BootdiffError, match="neither folded nor exported"):
        student.one_step()


def test_gradients_reach_the_layers_that_mix(teacher):
    student = TrajectoryStudent.from_teacher(teacher, 0.05, 0.8)
    loss = (student(eps_of(teacher)) - 1).square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in student.network.mixing.parameters())
