"""The export of every kind of student: stock diffusers makes what our samplers make, or there is a reason."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import DiffusionPipeline
from torch.testing import assert_close

from bootdiff import BootdiffError, Classes, load_teacher, save_student
from bootdiff.core.condition import Condition
from bootdiff.core.randomness import SampleNoise, sample_noise
from bootdiff.distillation.plan import plan_distillation
from bootdiff.export.diffusers import export_student
from bootdiff.export.exported import EXPORTED, Exported, Refused, export, refusal
from bootdiff.samplers.base import sampled
from bootdiff.samplers.few_step import FewStep, steps_of
from bootdiff.samplers.several import student_sampler
from bootdiff.samplers.students import StockStudent, open_student
from bootdiff.students.denoising import DenoisingStudent
from bootdiff.students.jump import JumpStudent
from bootdiff.students.kinds import student_kind
from test_student_kinds import shaken
from tiny_pipelines import save_class_unet, save_dit, save_if, save_sd, save_sd3
from tiny_unet import save_teacher

SEED = 5
WORDS = {"method": "boot", "settings": {}}


def stock(folder, calls, num=3, **words):
    """The images in [0, 1] of stock diffusers, (num, c, h, w), from the noises of our samples."""
    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    generators = [torch.Generator("cpu").manual_seed(SEED + i) for i in range(num)]
    images = pipe(generator=generators, num_inference_steps=calls, output_type="pt", **words).images
    return images if isinstance(images, torch.Tensor) else torch.from_numpy(images)


def ours(student, calls, num=3, condition=Condition()):
    sampler = student_sampler(student, calls).sample
    if isinstance(student, DenoisingStudent):  # its one call, too, starts at an entry of the table
        sampler = FewStep(student, steps_of(student, calls))
    made = sampled(sampler, SampleNoise(SEED, 0, num, student.shape), condition)
    return (student.decode(made).clamp(-1, 1) + 1) / 2


TEACHERS = {
    "signal": {},
    "noise": {"prediction_type": "epsilon", "beta_schedule": "linear"},
    "v": {"prediction_type": "v_prediction", "channels": 3},
    "threshold": {"thresholding": True, "clip_sample": False},
    "sigmoid": {"beta_schedule": "sigmoid"},
    "table": {"unet": {"time_embedding_type": "learned", "num_train_timesteps": 1000}},
}


@pytest.mark.parametrize("name", TEACHERS)
def test_a_denoising_student_is_stock_ddim_at_every_number_of_calls(name, tmp_path):
    teacher = load_teacher(str(save_teacher(tmp_path / "teacher", **TEACHERS[name])))
    student = shaken(DenoisingStudent.from_teacher(teacher))
    student.calls = 4
    export_student(student, tmp_path / "student", WORDS)
    for calls in (1, 2, 3, 4, 8):
        assert_close(stock(tmp_path / "student", calls, batch_size=3), ours(student, calls), atol=1e-4, rtol=0)


def test_a_student_that_ends_below_the_tables_end_starts_there(tmp_path):
    student = shaken(DenoisingStudent.from_teacher(load_teacher("digits").denoiser, 0.0, 0.8))
    export_student(student, tmp_path / "student", WORDS)
    for calls in (1, 2, 4):
        assert_close(stock(tmp_path / "student", calls, batch_size=3), ours(student, calls), atol=1e-4, rtol=0)


def test_the_builtin_digits_in_several_calls(tmp_path):
    student = shaken(DenoisingStudent.from_teacher(load_teacher("digits").denoiser))
    student.calls = 4
    export_student(student, tmp_path / "student", WORDS)
    assert_close(stock(tmp_path / "student", 4, batch_size=3), ours(student, 4), atol=1e-4, rtol=0)
    card = json.loads((tmp_path / "student/bootdiff.json").read_text())
    assert card["calls"] == 4 and card["any_calls"] is True and card["kind"] == "denoising"
    readme = (tmp_path / "student/README.md").read_text()
    assert "few-step student" in readme and "num_inference_steps=4" in readme and "4 network calls" in readme
    # Our own sampler opens it, at any number of calls.
    eps = sample_noise(SEED, 0, 3, student.shape)
    for calls in (1, 4, 8):
        sampler, _ = open_student(str(tmp_path / "student"), calls)
        assert_close(sampler(eps), FewStep(student, steps_of(student, calls))(eps), atol=2e-4, rtol=1e-3)


def test_a_denoising_student_of_classes_folds_the_weight_alone(tmp_path):
    teacher = load_teacher(str(save_class_unet(tmp_path / "teacher")))
    student = shaken(DenoisingStudent.from_teacher(teacher, guidance=(1.0, 4.0)))
    student.conditions = {"labels": [0, 1, 2], "null_class": 3}
    export_student(student, tmp_path / "student", WORDS, 2.0)
    condition = Classes([2]).listed(0, 0, 3).add(guidance=torch.full((3,), 2.0))
    made = stock(tmp_path / "student", 2, batch_size=3, class_labels=[2, 2, 2])
    assert_close(made, ours(student, 2, condition=condition), atol=1e-4, rtol=0)


def test_a_denoising_student_of_latents_and_classes(tmp_path):
    teacher = load_teacher(str(save_dit(tmp_path / "teacher")))
    student = shaken(DenoisingStudent.from_teacher(teacher))
    export_student(student, tmp_path / "student", WORDS)
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "student")
    pipe.set_progress_bar_config(disable=True)
    generators = [torch.Generator("cpu").manual_seed(SEED + i) for i in range(3)]
    words = {"num_inference_steps": 2, "guidance_scale": 1, "output_type": "np"}
    made = torch.from_numpy(pipe(class_labels=[1, 1, 1], generator=generators, **words).images).permute(0, 3, 1, 2)
    assert_close(made, ours(student, 2, condition=Classes([1]).listed(0, 0, 3)), atol=1e-4, rtol=0)


def test_what_no_stock_scheduler_calls_again_is_folded_into_one_call(tmp_path):
    student = shaken(JumpStudent.from_teacher(load_teacher("digits").denoiser))
    student.calls = 4
    export_student(student, tmp_path / "student", WORDS)
    assert_close(stock(tmp_path / "student", 1, batch_size=3), ours(student, 1), atol=1e-4, rtol=0)
    with pytest.raises(ValueError):
        stock(tmp_path / "student", 4, batch_size=3)
    readme = (tmp_path / "student/README.md").read_text()
    assert "one-step student" in readme and "num_inference_steps=1" in readme
    assert "Its run makes images in several calls, too (bootdiff sample RUN --calls K)" in readme
    with pytest.raises(BootdiffError, match="makes its image in one call; name its run instead"):
        StockStudent(tmp_path / "student", 2)


@pytest.mark.parametrize("calls", [1, 8])
def test_the_card_says_what_a_student_was_made_for(tmp_path, calls):
    """A student of one number of calls is not said to take others, and one folded into fewer says what it loses."""
    student = shaken(JumpStudent.from_teacher(load_teacher("digits").denoiser))
    student.made_for(calls)
    export_student(student, tmp_path / "student", {**WORDS, "settings": {"pairs": 8}})
    readme = (tmp_path / "student/README.md").read_text()
    assert "--calls K" not in readme and ("made for 8 calls" in readme) is (calls == 8)
    assert "from samples that its teacher made of noise" in readme


@pytest.mark.parametrize("kind", ["denoising", "consistency", "jump"])
@pytest.mark.parametrize("save", [save_if, save_sd3])
def test_families_whose_schedulers_take_other_steps_have_one_call(kind, save, tmp_path):
    teacher = load_teacher(str(save(tmp_path / "teacher")))
    made = export(student_kind(kind).from_teacher(teacher))
    assert isinstance(made, Exported | Refused)
    if isinstance(made, Exported):
        assert (made.calls, made.any_calls) == (1, False)
    else:
        assert "\n" not in made.reason and made.reason.startswith("no stock pipeline holds this student")


@pytest.mark.parametrize("kind", EXPORTED)
def test_every_kind_has_an_export_for_stable_diffusion(kind, tmp_path):
    student = student_kind(kind).from_teacher(load_teacher(str(save_sd(tmp_path / "teacher"))))
    made = export(student)
    assert isinstance(made, Exported) and made.any_calls == (kind in ("denoising", "consistency"))


def test_a_kind_without_any_scheduler_is_refused_with_the_way_out():
    adapter = load_teacher("digits").denoiser.adapter
    assert refusal("path", adapter) is None and refusal("trajectory", None) is None
    assert "makes the call of a trajectory student; sample it from its run" in str(refusal("trajectory", adapter))


def test_a_run_without_an_export_is_finished_and_says_why(tmp_path, monkeypatch, cli):
    monkeypatch.setattr("bootdiff.distillation.ending.export", lambda student, weight: Refused("no scheduler does it"))
    from bootdiff import BootSettings, distill

    settings = BootSettings(steps=1, batch_size=2, watch_every=0)
    distill("digits", tmp_path / "run", settings)
    assert json.loads((tmp_path / "run/done.json").read_text())["not_exported"] == "no scheduler does it"
    assert not (tmp_path / "run/student").exists()
    assert "no scheduler does it" in (tmp_path / "run/student-path/README.md").read_text()
    assert plan_distillation("digits", tmp_path / "run", settings).finished
    student, _ = open_student(str(tmp_path / "run"))
    assert student(sample_noise(0, 0, 1, student.shape)).shape == (1, *student.shape)
    done = cli("report", tmp_path / "run")
    assert done.code == 0, done.err
    assert "No stock pipeline of run: no scheduler does it" in (tmp_path / "run/report.html").read_text()


def test_cards_of_path_students_are_as_they_were(tmp_path):
    save_student(student_kind("path").from_teacher(load_teacher("digits").denoiser), tmp_path / "student")
    card = json.loads((tmp_path / "student/bootdiff.json").read_text())
    assert not {"calls", "any_calls"} & set(card)
