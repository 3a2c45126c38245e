"""Students: equal to the teacher at first, answering for every t, and folding into the teacher's class."""

import pytest
import torch
from torch import nn

from bootdiff.core.errors import BootdiffError
from bootdiff.schedules import Cosine, RectifiedFlow
from bootdiff.students import Student
from bootdiff.teachers import CallableTeacher, load_teacher
from tiny_unet import save_teacher

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


def edm_config(**fields) -> dict:
    return {"_class_name": "EDMEulerScheduler", "sigma_min": 0.01, "sigma_max": 50.0, "sigma_data": 0.6, **fields}


def ve_teachers(tmp_path):
    """EDM's preconditioning, with and without skip blocks."""
    yield load_teacher(str(save_teacher(tmp_path / "edm", scheduler=edm_config())))
    yield load_teacher(str(save_teacher(tmp_path / "edm-v", scheduler=edm_config(prediction_type="v_prediction"))))
    skip = {
        "down_block_types": ("SkipDownBlock2D", "SkipDownBlock2D"),
        "up_block_types": ("SkipUpBlock2D", "SkipUpBlock2D"),
        "norm_num_groups": None,
        "block_out_channels": (16, 16),
    }
    yield load_teacher(str(save_teacher(tmp_path / "skip", channels=3, scheduler=edm_config(), unet=skip)))


def odd_teachers(tmp_path):
    """A network that predicts its variance as well, and one that looks timesteps up in a table."""
    yield load_teacher(
        str(save_teacher(tmp_path / "learned", unet={"out_channels": 2}, scheduler={"variance_type": "learned_range"}))
    )
    table = {"time_embedding_type": "learned", "num_train_timesteps": 1000}
    yield load_teacher(str(save_teacher(tmp_path / "table", unet=table)))


def teachers(tmp_path):
    for teacher in (*ve_teachers(tmp_path), *odd_teachers(tmp_path)):
        yield teacher.denoiser
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
            x_T = teacher.schedule.start_scale(0.95) * eps
            expected = teacher.x0(x_T, torch.full((4,), 0.95))
            for t in (0.01, 0.3, 0.95):
                ours = student(eps, torch.full((4,), t))
                if teacher.schedule.start_scale(0.95) == 1:
                    assert torch.equal(ours, expected)
                else:  # a · (nu · eps) and (a · nu) · eps round differently
                    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


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
        image = student.one_step()(eps)
        with torch.no_grad():
            scale = float(student(eps, torch.full((4,), 0.01)).abs().max())  # before the limit
        torch.testing.assert_close(image, student.sample(eps), rtol=0, atol=5e-6 * scale)


def test_a_folded_unet_no_longer_reads_its_timestep(tmp_path):
    student = Student.from_teacher(load_teacher(str(save_teacher(tmp_path / "t"))), 0.0, 0.98)
    disturb(student)
    folded, eps = student.fold(), torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(folded(eps, 0).sample, folded(eps, 700).sample)


def test_what_cannot_be_grown_is_refused():
    with pytest.raises(BootdiffError, match="bias"):
        Student.from_teacher(CallableTeacher(nn.Identity(), Cosine(), "sample", (2,)))


def test_sampling_outside_the_path_or_in_another_shape_is_refused():
    student = Student.from_teacher(CallableTeacher(Net(), Cosine(), "sample", (2, 8, 8)), 0.01, 0.95)
    with pytest.raises(BootdiffError, match="outside"):
        student.sample(torch.zeros(1, 2, 8, 8), t=2.0)
    with pytest.raises(BootdiffError, match="expected noises"):
        student.sample(torch.zeros(1, 2, 4, 8))
