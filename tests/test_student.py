"""Students: equal to the teacher at first, answering for every t, and folding into the teacher's class."""

import pytest
import torch
from torch import nn

from bootdiff.errors import BootdiffError
from bootdiff.schedules import Cosine, RectifiedFlow
from bootdiff.student import Student
from bootdiff.teachers import CallableTeacher, Gaussian, load_teacher
from conftest import save_teacher

GENERATOR = torch.Generator().manual_seed(0)


class Net(nn.Module):
    """A small module with a time input, convolutions and linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 8, 3, padding=1)
        self.time = nn.Linear(1, 8)
        self.last = nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, x, timestep):
        return self.last(torch.tanh(self.first(x) + self.time(timestep[:, None] / 999)[..., None, None]))


def teachers(tmp_path):
    yield load_teacher(str(save_teacher(tmp_path / "noise", prediction_type="epsilon"))).denoiser
    yield load_teacher(str(save_teacher(tmp_path / "v", channels=3, prediction_type="v_prediction"))).denoiser
    yield CallableTeacher(Net(), Cosine(), "sample", (2, 8, 8))
    yield CallableTeacher(Net(), RectifiedFlow(), "flow_prediction", (2, 8, 8))


def disturb(student: Student) -> None:
    """Stand in for training: move every weight, the zero-initialised ones too."""
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=GENERATOR)


def test_a_new_student_is_its_teacher_exactly(tmp_path):
    for teacher in teachers(tmp_path):
        student = Student.from_teacher(teacher, 0.01, 0.95)
        eps = torch.randn(4, *teacher.shape, generator=GENERATOR)
        with torch.no_grad():
            expected = teacher.x0(eps, torch.full((4,), 0.95))
            for t in (0.01, 0.3, 0.95):
                assert torch.equal(student(eps, torch.full((4,), t)), expected)


def test_a_trained_student_depends_on_t_and_its_teacher_is_untouched(tmp_path):
    for teacher in teachers(tmp_path):
        before = [p.clone() for p in teacher.parameters()]
        student = Student.from_teacher(teacher, 0.01, 0.95)
        disturb(student)
        eps = torch.randn(4, *teacher.shape, generator=GENERATOR)
        with torch.no_grad():
            early, late = (student(eps, torch.full((4,), t)) for t in (0.1, 0.9))
        assert float((early - late).abs().max()) > 1e-3
        assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True))


def test_folding_keeps_the_image_and_the_class(tmp_path):
    for teacher in teachers(tmp_path):
        student = Student.from_teacher(teacher, 0.01, 0.95)
        disturb(student)
        folded = student.fold()
        assert type(folded) is type(teacher.network)
        eps = torch.randn(4, *teacher.shape, generator=GENERATOR)
        own = teacher.timestep(torch.full((4,), 0.95))
        with torch.no_grad():
            out = folded(eps, own)
            out = out if isinstance(out, torch.Tensor) else out.sample
            alpha, sigma = teacher.schedule.alpha_sigma(torch.tensor([0.95]))
            image = student.prediction.x0(out, eps, alpha, sigma)
        scale = float(image.abs().max())
        torch.testing.assert_close(image, student(eps, torch.full((4,), 0.01)), rtol=0, atol=5e-6 * scale)


def test_a_folded_unet_no_longer_reads_its_timestep(tmp_path):
    student = Student.from_teacher(load_teacher(str(save_teacher(tmp_path / "t"))), 0.0, 0.98)
    disturb(student)
    folded, eps = student.fold(), torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(folded(eps, 0).sample, folded(eps, 700).sample)


def test_what_cannot_be_grown_is_refused():
    with pytest.raises(BootdiffError, match="no network"):
        Student.from_teacher(Gaussian())
    with pytest.raises(BootdiffError, match="bias"):
        Student.from_teacher(CallableTeacher(nn.Identity(), Cosine(), "sample", (2,)))


def test_sampling_outside_the_path_or_in_another_shape_is_refused():
    student = Student.from_teacher(CallableTeacher(Net(), Cosine(), "sample", (2, 8, 8)), 0.01, 0.95)
    with pytest.raises(BootdiffError, match="outside"):
        student.sample(torch.zeros(1, 2, 8, 8), t=2.0)
    with pytest.raises(BootdiffError, match="expected noises"):
        student.sample(torch.zeros(1, 2, 4, 8))
