"""The exported student: stock diffusers opens it, one call makes its image, more are refused."""

import subprocess
import sys

import pytest
import torch
from diffusers import DiffusionPipeline

from bootdiff.pipelines.export import export_student
from bootdiff.pipelines.samplers import open_student
from bootdiff.pipelines.student_files import load_student, save_student
from bootdiff.randomness import sample_noise
from bootdiff.student import Student
from bootdiff.teachers import load_teacher
from conftest import save_teacher

STOCK = """
import sys
sys.modules["bootdiff"] = None  # an environment without it
import torch
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(sys.argv[1])
pipe.set_progress_bar_config(disable=True)
generators = [torch.Generator("cpu").manual_seed(5 + i) for i in range(4)]
images = pipe(batch_size=4, generator=generators, output_type="pt").images
torch.save(images, sys.argv[2])
for steps in (2, 50):
    try:
        pipe(num_inference_steps=steps)
    except ValueError:
        continue
    sys.exit(f"{steps} steps were not refused")
"""


def trained(folder, **fields) -> tuple[Student, dict]:
    teacher = load_teacher(str(save_teacher(folder, **fields)))
    student = Student.from_teacher(teacher)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return student, teacher.denoiser.scheduler_config


@pytest.mark.parametrize(
    "fields",
    [{}, {"prediction_type": "epsilon", "beta_schedule": "linear"}, {"prediction_type": "v_prediction", "channels": 3},
     {"thresholding": True, "clip_sample": False}],
    ids=["signal", "noise", "v", "threshold"],
)  # fmt: skip
def test_stock_diffusers_makes_our_images_without_bootdiff(tmp_path, fields):
    student, _ = trained(tmp_path / "teacher", **fields)
    export_student(student, tmp_path / "student", {"method": "boot", "settings": {}})
    words = [sys.executable, "-c", STOCK, str(tmp_path / "student"), str(tmp_path / "images.pt")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    stock = torch.load(tmp_path / "images.pt", weights_only=True)
    ours = (student.sample(sample_noise(5, 0, 4, student.shape)).clamp(-1, 1) + 1) / 2
    if fields.get("prediction_type") != "epsilon":  # a random noise prediction gives huge x_0; next test
        assert float(((ours > 0.01) & (ours < 0.99)).float().mean()) > 0.02, "nothing but clipped pixels was compared"
    torch.testing.assert_close(stock, ours, rtol=0, atol=1e-5)


def test_a_noise_prediction_is_exported_to_five_digits_where_alpha_is_small(tmp_path):
    student, _ = trained(tmp_path / "teacher", prediction_type="epsilon", clip_sample=False)
    export_student(student, tmp_path / "student", {})
    eps = sample_noise(0, 0, 4, student.shape)
    stock, ours = open_student(str(tmp_path / "student"))[0](eps), student.sample(eps)
    assert float(student.schedule.alpha_sigma(torch.tensor([student.t_max]))[0]) < 0.03
    assert float((stock - ours).abs().max()) < 2e-5 * float(ours.abs().max())


def test_the_unfolded_student_comes_back_whole(tmp_path):
    student, scheduler = trained(tmp_path / "teacher")
    save_student(student, tmp_path / "path", scheduler)
    again = load_student(tmp_path / "path")
    eps = sample_noise(0, 0, 3, student.shape)
    for t in (student.t_min, 0.4, student.t_max):
        assert torch.equal(again.sample(eps, t=t), student.sample(eps, t=t))
    assert (again.t_min, again.t_max) == (student.t_min, student.t_max)


def test_our_sampler_opens_both(tmp_path):
    student, scheduler = trained(tmp_path / "teacher")
    export_student(student, tmp_path / "stock", {})
    save_student(student, tmp_path / "path", scheduler)
    eps = sample_noise(0, 0, 3, student.shape)
    images = [open_student(str(tmp_path / name))[0](eps) for name in ("stock", "path")]
    torch.testing.assert_close(*images, rtol=0, atol=1e-5)


def test_the_card_says_what_it_is(tmp_path):
    student, _ = trained(tmp_path / "teacher")
    export_student(student, tmp_path / "student", {"method": "boot", "settings": {"delta": 0.04}})
    card = (tmp_path / "student" / "README.md").read_text()
    assert student.teacher_name in card and "| delta | 0.04 |" in card and "method: boot" in card
    assert type(DiffusionPipeline.from_pretrained(tmp_path / "student")).__name__ == "ConsistencyModelPipeline"
