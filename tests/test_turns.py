"""A consistency student that begins with what a path student answers, and what cannot be made one."""

from __future__ import annotations

import shutil

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from bootdiff import CallableTeacher, Cosine
from bootdiff.core.errors import BootdiffError
from bootdiff.core.randomness import sample_noise
from bootdiff.distillation.distill import distill
from bootdiff.methods.registry import find_method, names
from bootdiff.students.card import read_card
from bootdiff.students.consistency import ConsistencyStudent
from bootdiff.students.files import load_student
from bootdiff.students.path import PathStudent
from bootdiff.teachers import Teacher, blank_condition, load_teacher
from test_forward_mode import Net
from test_siblings import TEACHER
from tiny_pipelines import save_class_unet, save_dit, save_flux, save_if, save_sd, save_sd3, saved
from tiny_unet import save_teacher

FAST = {"steps": 6, "batch_size": 4, "watch_every": 0, "sample_every": 0, "pairs": 8, "pair_steps": 2}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return load_teacher(save_teacher(tmp_path_factory.mktemp("tiny") / "teacher"))


def plain_module(folder):
    return CallableTeacher(Net(), Cosine(), "sample", (4,))


def with_slot(folder):
    """A Stable Diffusion whose network has an input for a guidance weight, as a distilled one has."""
    pipeline = StableDiffusionPipeline.from_pretrained(save_sd(folder), safety_checker=None)
    pipeline.unet = UNet2DConditionModel.from_config({**pipeline.unet.config, "time_cond_proj_dim": 256})
    return load_teacher(saved(pipeline, folder / "slot"))


MAKES = [save_teacher, save_class_unet, save_dit, save_sd, save_sd3, save_flux, save_if, with_slot, plain_module]


@pytest.mark.parametrize("make", MAKES, ids=lambda make: make.__name__)
def test_it_answers_noise_as_the_path_student_does_and_goes_on_telling_times_apart(make, tmp_path):
    """At t_max the boundary's share of the noise is small, and the network's answer is the path student's image.

    Below it an untrained one is what grows from the teacher, and a trained one still hears the time.
    """
    made = make(tmp_path / "teacher")
    teacher = made if isinstance(made, Teacher) else load_teacher(made)
    path = PathStudent.from_teacher(teacher)
    eps, condition = sample_noise(3, 0, 2, teacher.shape), blank_condition(teacher, 2)
    times = [torch.full((2,), t) for t in (path.t_max, 0.4)]
    grown, begun = ConsistencyStudent.from_teacher(teacher), ConsistencyStudent.begun_from(path, teacher, path.t_max)
    with torch.no_grad():
        for time in times:
            assert (grown(eps, time, condition) - begun(eps, time, condition)).abs().max() < 1e-5
        for weight in path.network.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())))
        new = ConsistencyStudent.begun_from(path, teacher, path.t_max)
        skip, out = (v.item() for v in new.boundary.factors(times[0][:1], new.t_min, new.schedule))
        image = path.image(eps, condition)
        expected = skip * new.schedule.start_scale(path.t_max) * eps + out * image
        close = 1e-4 * image.abs().max()
        assert (new.image(eps, condition) - expected).abs().max() < close
        assert (image - PathStudent.from_teacher(teacher).image(eps, condition)).abs().max() > 100 * close
        assert (new(eps, times[0], condition) - new(eps, times[1], condition)).abs().max() > close


def test_consistency_goes_on_from_boot_in_one_run(teacher, tmp_path):
    kind = find_method("boot+consistency")
    assert kind.student == "consistency" and "boot+consistency" in names() and "consistency+direct" not in names()
    settings = kind.settings(**FAST, learning_rate=1e-9, ema_decay=0.0, boot={"steps": 6, "learning_rate": 1e-2})
    distill(teacher, tmp_path / "run", settings, "boot+consistency")
    first, last = load_student(tmp_path / "run" / "boot", teacher), load_student(tmp_path / "run", teacher)
    assert (first.kind, last.kind) == ("path", "consistency")
    eps = sample_noise(3, 0, 8, teacher.shape)
    with torch.no_grad():
        # The rate is next to 0, so that only the boundary's share of the noise differs.
        assert (first.image(eps) - last.image(eps)).abs().max() < 0.05


@pytest.mark.parametrize(
    "method, words, name",
    [
        ("consistency", {"boundary": "naive"}, "naive"),
        ("consistency", {}, "lcm"),
        ("tbcm", {}, "lcm"),
        ("consistency-training", {"images": "digits", "pairs": ...}, "lcm"),
    ],
)
def test_it_goes_on_from_a_saved_path_student_as_a_new_student_of_its_own_kind(tmp_path, method, words, name):
    teacher = load_teacher("digits")
    boot = find_method("boot")
    quick = {"steps": 4, "batch_size": 4, "watch_every": 0, "sample_every": 0}
    distill(teacher, tmp_path / "boot", boot.settings(**quick, learning_rate=1e-2))
    asked = {**quick, "pairs": 8, "pair_steps": 7, **words, "learning_rate": 1e-9, "ema_decay": 0.0}
    if asked["pairs"] is ...:
        del asked["pairs"], asked["pair_steps"]
    distill(teacher, tmp_path / "run", find_method(method).settings(**asked, start=str(tmp_path / "boot")), method)
    first, last = load_student(tmp_path / "boot", teacher), load_student(tmp_path / "run", teacher)
    assert last.kind == "consistency" and last.boundary.name == name
    assert read_card(tmp_path / "run" / "student-path").data_free == (method != "consistency-training")
    eps = sample_noise(3, 0, 8, teacher.shape)
    with torch.no_grad():
        assert (first.image(eps) - last.image(eps)).abs().max() < 0.05
        assert (first.image(eps) - PathStudent.from_teacher(teacher).image(eps)).abs().max() > 0.2


def test_lcm_goes_on_from_boot_in_one_run_at_its_own_times(tmp_path):
    teacher = load_teacher(save_sd(tmp_path / "sd"))
    kind = find_method("boot+lcm")
    words = {"prompts": str(tmp_path / "words.txt"), "guidance_scale": 2.0, "grid": 10}
    (tmp_path / "words.txt").write_text("a cat\na dog\n")
    distill(teacher, tmp_path / "run", kind.settings(**FAST, **words, boot={"steps": 4}), "boot+lcm")
    first, last = load_student(tmp_path / "run" / "boot", teacher), load_student(tmp_path / "run", teacher)
    assert abs(first.t_max - last.t_max) < 1e-4 and last.points == 10 and last.guidance == first.guidance == 2.0


def test_a_default_of_the_last_method_alone_is_no_setting_of_the_first():
    kind = find_method("boot+consistency")
    assert kind.settings().solver == "heun" and kind.settings().first.solver == "euler"
    assert kind.settings(boot={"solver": "heun"}).first.solver == "heun"
    assert find_method("boot+lcm").settings().first.distance == "l2"
    assert kind.settings(distance="l1").first.distance == "l1"


def test_it_resumes_within_the_second_stage(teacher, tmp_path):
    settings = find_method("boot+consistency").settings(
        **{**FAST, "steps": 8, "checkpoint_every": 4}, boot={"steps": 2}
    )
    distill(teacher, tmp_path / "whole", settings, "boot+consistency")
    distill(teacher, tmp_path / "run", settings, "boot+consistency")
    (tmp_path / "run" / "done.json").unlink()
    for path in (tmp_path / "run" / "checkpoints").glob("*8*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    distill(teacher, tmp_path / "run", settings, "boot+consistency")
    a, b = (load_student(tmp_path / name, teacher).state_dict() for name in ("whole", "run"))
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    "method, words, said",
    [
        ("boot+consistency", {"guidance_range": [1.0, 4.0], "null_class": 0}, "has one guidance weight and no range"),
        ("consistency+boot", {}, "method boot cannot go on from consistency in one run"),
    ],
)
def test_what_cannot_be_turned_is_refused_before_anything_is_written(tmp_path, method, words, said):
    with pytest.raises(BootdiffError, match=said):
        settings = find_method(method).settings(**FAST, **words)
        distill(load_teacher("digits-class"), tmp_path / "run", settings, method)
    assert not (tmp_path / "run").exists()


def test_a_teacher_without_a_network_is_refused(tmp_path):
    settings = find_method("boot+consistency").settings(**FAST)
    with pytest.raises(BootdiffError, match="takes a teacher with a network"):
        distill(TEACHER, tmp_path / "run", settings, "boot+consistency")
    assert not (tmp_path / "run").exists()
