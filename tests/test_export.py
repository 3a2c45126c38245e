"""The exported student: stock diffusers opens it, one call makes its image, more are refused."""

import subprocess
import sys

import pytest
import torch
from diffusers import DiffusionPipeline

from bootdiff.core.errors import BootdiffError
from bootdiff.core.randomness import sample_noise
from bootdiff.export.diffusers import export_student
from bootdiff.samplers.students import open_student
from bootdiff.schedules import Cosine
from bootdiff.students import Student
from bootdiff.students.files import load_student, save_student
from bootdiff.teachers import CallableTeacher, Clip, DynamicThreshold, Limited, Mixture, load_teacher
from tiny_unet import save_teacher

STOCK = """
import sys
sys.modules["bootdiff"] = None  # an environment without it
import torch
from diffusers import DiffusionPipeline
for folder in sys.argv[1:]:
    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    generators = [torch.Generator("cpu").manual_seed(5 + i) for i in range(4)]
    images = pipe(batch_size=4, generator=generators, output_type="pt").images
    torch.save(images, folder + "/images.pt")
    for steps in (2, 50):
        try:
            pipe(num_inference_steps=steps)
        except ValueError:
            continue
        sys.exit(f"{folder}: {steps} steps were not refused")
"""


EDM = {"_class_name": "EDMEulerScheduler", "sigma_max": 50.0, "sigma_data": 0.6}
SKIP = {
    "down_block_types": ("SkipDownBlock2D", "SkipDownBlock2D"),
    "up_block_types": ("SkipUpBlock2D", "SkipUpBlock2D"),
    "norm_num_groups": None,
    "block_out_channels": (16, 16),
}


def trained(folder, **fields) -> Student:
    teacher = load_teacher(str(save_teacher(folder, **fields)))
    student = Student.from_teacher(teacher)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return student


TEACHERS = {
    "signal": {},
    "noise": {"prediction_type": "epsilon", "beta_schedule": "linear"},
    "v": {"prediction_type": "v_prediction", "channels": 3},
    "threshold": {"thresholding": True, "clip_sample": False},
    "edm": {"scheduler": EDM, "channels": 3},
    "edm-skip": {"scheduler": EDM, "unet": SKIP, "channels": 3},
    "edm-v": {"scheduler": {**EDM, "prediction_type": "v_prediction"}, "unet": {"sample_size": (8, 8)}},
    "learned-variance": {"scheduler": {"variance_type": "learned"}, "unet": {"out_channels": 2}},
    "table": {"unet": {"time_embedding_type": "learned", "num_train_timesteps": 1000}},
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> dict[str, tuple[Student, torch.Tensor]]:
    """Students, and the images of one process that opened all their exports with stock diffusers."""
    place = tmp_path_factory.mktemp("exported")
    students = {name: trained(place / "teachers" / name, **fields) for name, fields in TEACHERS.items()}
    for name, student in students.items():
        export_student(student, place / name, {"method": "boot", "settings": {}})
    words = [sys.executable, "-c", STOCK, *(str(place / name) for name in students)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    images = {name: torch.load(place / name / "images.pt", weights_only=True) for name in students}
    return {name: (student, images[name]) for name, student in students.items()}


@pytest.mark.parametrize("name", TEACHERS)
def test_stock_diffusers_makes_our_images_without_bootdiff(exported, name):
    student, stock = exported[name]
    ours = (student.sample(sample_noise(5, 0, 4, student.shape)).clamp(-1, 1) + 1) / 2
    if name != "noise":  # a random noise prediction gives huge x_0; next test
        assert float(((ours > 0.01) & (ours < 0.99)).float().mean()) > 0.02, "nothing but clipped pixels was compared"
    torch.testing.assert_close(stock, ours, rtol=0, atol=1e-5)


def test_a_noise_prediction_is_exported_to_five_digits_where_alpha_is_small(tmp_path):
    student = trained(tmp_path / "teacher", prediction_type="epsilon", clip_sample=False)
    export_student(student, tmp_path / "student", {})
    eps = sample_noise(0, 0, 4, student.shape)
    stock, ours = open_student(str(tmp_path / "student"))[0](eps), student.sample(eps)
    assert float(student.schedule.alpha_sigma(torch.tensor([student.t_max]))[0]) < 0.03
    assert float((stock - ours).abs().max()) < 2e-5 * float(ours.abs().max())


def test_the_unfolded_student_comes_back_whole(tmp_path):
    student = trained(tmp_path / "teacher")
    save_student(student, tmp_path / "path")
    again = load_student(tmp_path / "path")
    eps = sample_noise(0, 0, 3, student.shape)
    for t in (student.t_min, 0.4, student.t_max):
        assert torch.equal(again.sample(eps, t=t), student.sample(eps, t=t))
    assert (again.t_min, again.t_max) == (student.t_min, student.t_max)


def test_our_sampler_opens_both(tmp_path):
    student = trained(tmp_path / "teacher")
    export_student(student, tmp_path / "stock", {})
    save_student(student, tmp_path / "path")
    eps = sample_noise(0, 0, 3, student.shape)
    images = [open_student(str(tmp_path / name))[0](eps) for name in ("stock", "path")]
    torch.testing.assert_close(*images, rtol=0, atol=1e-5)


def test_the_card_says_what_it_is(tmp_path):
    student = trained(tmp_path / "teacher")
    export_student(student, tmp_path / "student", {"method": "boot", "settings": {"delta": 0.04}})
    card = (tmp_path / "student" / "README.md").read_text()
    assert "| teacher | teacher |" in card and str(tmp_path) not in card  # its name, and nobody's folders
    assert "| delta | 0.04 |" in card and "method: boot" in card
    assert type(DiffusionPipeline.from_pretrained(tmp_path / "student")).__name__ == "ConsistencyModelPipeline"


def test_a_time_that_a_scheduler_cannot_hold_is_refused(tmp_path):
    teacher = load_teacher(str(save_teacher(tmp_path / "t", channels=3, scheduler=EDM, unet=SKIP)))
    with pytest.raises(BootdiffError, match="nearest_start"):
        export_student(Student.from_teacher(teacher, 0.0, 0.95), tmp_path / "student", {})
    assert not (tmp_path / "student").exists()
    export_student(Student.from_teacher(teacher, 0.0, teacher.nearest_start(0.95)), tmp_path / "student", {})


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x, timestep):
        return self.layer(torch.cat([x, timestep[:, None] / 999], 1))


def test_one_step_is_the_student_and_a_plain_student_comes_back_with_its_teacher(tmp_path):
    student = trained(tmp_path / "teacher", prediction_type="v_prediction")
    eps = sample_noise(0, 0, 3, student.shape)
    torch.testing.assert_close(student.one_step()(eps), student.sample(eps), rtol=0, atol=1e-5)
    teacher = Mixture(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    plain = Student.from_teacher(teacher, 0.02, 0.9)
    torch.nn.init.normal_(plain.network.last.weight)
    save_student(plain, tmp_path / "path")
    again, eps = load_student(tmp_path / "path", teacher), sample_noise(0, 0, 3, (2,))
    assert torch.equal(again.sample(eps), plain.sample(eps))
    torch.testing.assert_close(plain.one_step()(eps), plain.sample(eps))
    limited = Limited(CallableTeacher(Net(), Cosine(), "epsilon", (3,)), Clip(0.5))
    student, eps = Student.from_teacher(limited), sample_noise(0, 0, 4, (3,))
    torch.testing.assert_close(student.one_step()(eps), student.sample(eps))
    assert float(student.sample(eps).abs().max()) == 0.5
    with pytest.raises(BootdiffError, match="load_student"):
        load_student(tmp_path / "path")
    with pytest.raises(BootdiffError, match="does not fit"):
        load_student(tmp_path / "path", Mixture(torch.zeros(1, 3)))


def test_a_student_remembers_how_its_teacher_was_loaded_and_its_targets_limited(tmp_path):
    folder = save_teacher(tmp_path / "teacher")
    teacher = load_teacher(str(folder), dtype="bfloat16")
    student = Student.from_teacher(teacher)
    student.target_limit = DynamicThreshold(0.9, 2.0)
    save_student(student, tmp_path / "path")
    again = load_student(tmp_path / "path")
    assert again.origin == teacher.denoiser.origin and again.target_limit == student.target_limit
    assert next(again.parameters()).dtype == torch.float32
