"""Consistency students in stock pipelines: every number of calls is what our sampler makes, and what is not is said."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import DiffusionPipeline, LCMScheduler
from torch.testing import assert_close

from bootdiff import BootdiffError, Clip, load_student, load_teacher, save_student
from bootdiff.core.condition import Condition
from bootdiff.core.randomness import SampleNoise, sample_noise
from bootdiff.export.diffusers import export_student
from bootdiff.export.exported import export
from bootdiff.export.several import has_lcm_boundary
from bootdiff.samplers.base import sampled
from bootdiff.samplers.consistency import consistency_times, possible_times
from bootdiff.samplers.several import student_sampler
from bootdiff.samplers.students import StockStudent
from bootdiff.schedules import EDM
from bootdiff.students.boundary import KarrasSkip, LcmSkip, Naive, Skip
from bootdiff.students.consistency import ConsistencyStudent
from test_student_kinds import shaken
from tiny_pipelines import save_class_unet, save_dit, save_sd, save_sdxl
from tiny_unet import save_teacher

SEED, CALLS = 5, (1, 2, 3, 4, 8)
WORDS = {"method": "consistency", "settings": {}}
#: how far our sampler and stock diffusers may be apart, in pixels of [0, 1]
SAME = {"atol": 1e-5, "rtol": 0}


def stock(folder, calls, *asked, num=3, **words):
    """The images in [0, 1] of stock diffusers, (num, c, h, w), from the noises of our samples."""
    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    generators = [torch.Generator("cpu").manual_seed(SEED + i) for i in range(num)]
    images = pipe(*asked, generator=generators, num_inference_steps=calls, output_type="pt", **words).images
    return images if isinstance(images, torch.Tensor) else torch.from_numpy(images)


def ours(student, calls, condition=Condition(), num=3):
    made = sampled(student_sampler(student, calls).sample, SampleNoise(SEED, 0, num, student.shape), condition)
    return (student.decode(made).clamp(-1, 1) + 1) / 2


def gently_shaken(teacher, **words):
    """A student that differs from its teacher, whose answers are of the size of images."""
    student = ConsistencyStudent.from_teacher(teacher, **words)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=generator)
    return student.eval()


TABLES = {
    "signal": {},
    "noise": {"prediction_type": "epsilon", "beta_schedule": "linear"},
    "v": {"prediction_type": "v_prediction", "channels": 3},
    "threshold": {"thresholding": True, "clip_sample": False},
    "learned": {"unet": {"time_embedding_type": "learned", "num_train_timesteps": 1000}},
}


@pytest.mark.parametrize("boundary", [LcmSkip(), Naive()])
@pytest.mark.parametrize("name", TABLES)
def test_on_a_table_of_betas_it_is_lcm_scheduler(name, boundary, tmp_path):
    student = gently_shaken(load_teacher(str(save_teacher(tmp_path / "teacher", **TABLES[name]))))
    assert student.boundary == LcmSkip() and has_lcm_boundary(student)
    student.boundary = boundary
    export_student(student, tmp_path / "student", WORDS)
    assert DiffusionPipeline.from_pretrained(tmp_path / "student").scheduler.__class__ is LCMScheduler
    for calls in CALLS:
        assert_close(stock(tmp_path / "student", calls, batch_size=3), ours(student, calls), **SAME)
        again = sampled(StockStudent(tmp_path / "student", calls), SampleNoise(SEED, 0, 3, student.shape), Condition())
        assert_close((again.clamp(-1, 1) + 1) / 2, ours(student, calls), **SAME)


def test_the_papers_own_boundary_is_none_of_lcms_and_has_one_call(tmp_path):
    student = gently_shaken(load_teacher(str(save_teacher(tmp_path / "teacher"))))
    student.boundary = Skip()
    assert not has_lcm_boundary(student)
    made = export(student)
    assert (made.calls, made.any_calls) == (1, False)


#: a network whose time embedding has as many features as points and more
WIDE = {"block_out_channels": (32, 32)}
EDMS = {
    "epsilon": {},
    "v": {"prediction_type": "v_prediction"},
    "other": {"sigma_data": 0.3, "sigma_max": 20.0, "rho": 5.0},
}


def save_edm(folder, unet=None, **fields):
    scheduler = {"_class_name": "EDMEulerScheduler", "sigma_min": 0.01, **fields}
    return save_teacher(folder, channels=3, unet=unet, scheduler=scheduler)


@pytest.mark.parametrize("limit", [None, Clip()])
@pytest.mark.parametrize("name", EDMS)
def test_for_edm_it_is_the_scheduler_of_consistency_models_at_its_own_times(name, limit, tmp_path):
    teacher = load_teacher(str(save_edm(tmp_path / "teacher", WIDE, **EDMS[name])))
    student = gently_shaken(teacher)
    student.points, student.limit = 18, limit or student.limit
    assert student.boundary == KarrasSkip(EDMS[name].get("sigma_data", 0.5))
    export_student(student, tmp_path / "student", WORDS)
    assert "up to 17 may be asked for" in (tmp_path / "student/README.md").read_text()
    for calls in (*CALLS, 17):
        made = ours(student, calls)
        assert_close(stock(tmp_path / "student", calls, batch_size=3), made, **SAME)
        before = torch.random.get_rng_state()
        again = sampled(StockStudent(tmp_path / "student", calls), SampleNoise(SEED, 0, 3, student.shape), Condition())
        assert torch.equal(torch.random.get_rng_state(), before)
        assert_close((again.clamp(-1, 1) + 1) / 2, made, **SAME)
    with pytest.raises(BootdiffError, match="can be called 17 times at most"):
        StockStudent(tmp_path / "student", 18)
    with pytest.raises(BootdiffError, match="18 calls are more than the 17 that this student's times allow"):
        student_sampler(student, 18)  # the last of its times is t_min


def test_the_karras_boundary_is_the_papers_own():
    """g = c_skip x + c_out F(c_in x), with the network F that EDM's x_0 is made of (Appendix C of the paper)."""
    low, sigma, data = 0.002, 1.7, 0.5
    schedule = EDM(low, 80.0)
    t = torch.tensor([(sigma ** (1 / 7) - low ** (1 / 7)) / (80 ** (1 / 7) - low ** (1 / 7))], dtype=torch.float64)
    skip, out = (v.item() for v in KarrasSkip(data).factors(t, 0.0, schedule))
    x, network = 0.9, -0.4
    x_0 = data**2 / (sigma**2 + data**2) * x + sigma * data / (sigma**2 + data**2) ** 0.5 * network
    c_skip = data**2 / ((sigma - low) ** 2 + data**2)
    c_out = data * (sigma - low) / (sigma**2 + data**2) ** 0.5
    assert skip * x + out * x_0 == pytest.approx(c_skip * x + c_out * network, abs=1e-6)


@pytest.mark.parametrize(
    "unet, fields, points",
    [
        (WIDE, {"sigma_schedule": "exponential"}, 18),
        ({}, {}, 18),  # more than the features of the tiny network's embedding
        (WIDE, {}, None),
    ],
)
def test_what_that_scheduler_cannot_hold_has_one_call_and_the_card_says_so(unet, fields, points, tmp_path):
    student = gently_shaken(load_teacher(str(save_edm(tmp_path / "teacher", unet, **fields))))
    student.points = points
    export_student(student, tmp_path / "student", WORDS)
    assert_close(stock(tmp_path / "student", 1, batch_size=3), ours(student, 1), atol=1e-4, rtol=0)
    assert "no stock scheduler has this student's boundary" in (tmp_path / "student/README.md").read_text()


def test_classes_go_with_several_calls(tmp_path):
    student = gently_shaken(load_teacher(str(save_class_unet(tmp_path / "teacher"))))
    export_student(student, tmp_path / "student", WORDS)
    labels = torch.tensor([0, 2, 1])
    made = ours(student, 4, Condition({"classes": labels}))
    assert_close(stock(tmp_path / "student", 4, batch_size=3, class_labels=labels), made, **SAME)


def told(pipe, student, prompts, weight):
    condition = student.adapter.encode(pipe, prompts)
    return condition if weight is None else condition.add(guidance=torch.full((len(prompts),), float(weight)))


@pytest.mark.parametrize("guidance", [None, 4.0, (3.0, 9.0)])
@pytest.mark.parametrize("save, kind", [(save_sd, "LatentConsistencyModel"), (save_sdxl, "StableDiffusionXL")])
def test_lcm_is_stock_lcm_at_every_number_of_calls_and_weight(save, kind, guidance, tmp_path):
    teacher = load_teacher(str(save(tmp_path / "teacher")))
    student = gently_shaken(teacher, t_max=1.0, guidance=guidance)
    student.points = 50
    export_student(student, tmp_path / "student", WORDS)
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "student")
    assert type(pipe).__name__ == f"{kind}Pipeline" and pipe.unet.config.time_cond_proj_dim is not None
    prompts = ["a cat", "a red dog", "two cats"]
    for weight in (3.0, 7.5) if isinstance(guidance, tuple) else (1.0, 8.0):
        known = student.told_weight(weight if isinstance(guidance, tuple) else None)
        for calls in (1, 2, 4):
            made = ours(student, calls, told(pipe, student, prompts, known))
            found = stock(tmp_path / "student", calls, prompts, guidance_scale=weight, height=16, width=16)
            assert_close(found, made, atol=2e-5, rtol=0)
    with pytest.raises(BootdiffError, match="can be called 50 times at most"):
        StockStudent(tmp_path / "student", 51)
    (tmp_path / "student/bootdiff.json").unlink()  # as somebody else's latent consistency model
    if kind == "LatentConsistencyModel":
        with pytest.raises(BootdiffError, match="is a LCMScheduler, which cannot be read"):
            load_teacher(str(tmp_path / "student"))


def test_the_times_are_those_of_the_schedulers(tmp_path):
    teacher = load_teacher(str(save_sd(tmp_path / "teacher")))
    student = ConsistencyStudent.from_teacher(teacher, t_max=1.0)
    for points, calls in [*((50, calls) for calls in (1, 2, 3, 4, 7, 8, 50)), (30, 22), (500, 38)]:
        student.points, scheduler = points, LCMScheduler(original_inference_steps=points)
        scheduler.set_timesteps(calls)
        times = torch.tensor(consistency_times(student, calls)) * 999
        assert_close(times, scheduler.timesteps.float(), atol=1e-3, rtol=0)
        assert len(possible_times(student)) == points


def test_the_times_of_a_student_are_on_its_card(tmp_path):
    student = gently_shaken(load_teacher(str(save_edm(tmp_path / "teacher"))))
    student.points = 7
    save_student(student, tmp_path / "student")
    again = load_student(tmp_path / "student")
    assert again.points == 7 and again.boundary == student.boundary
    card = json.loads((tmp_path / "student/bootdiff.json").read_text())
    for wrong in (1, 10_001, "7", 2.5, True):
        card["facts"]["points"] = wrong
        (tmp_path / "student/bootdiff.json").write_text(json.dumps(card))
        with pytest.raises(BootdiffError, match="points should be a whole number"):
            load_student(tmp_path / "student")
    assert torch.isfinite(again.sample(sample_noise(0, 0, 2, again.shape))).all()
    assert shaken(again).points == 7


def test_a_network_that_is_told_a_weight_has_one_call_at_edms_noise_levels(tmp_path):
    """Its first layer reads the weight as well as the time, so no change of it is right for both."""
    teacher = load_teacher(str(save_teacher(tmp_path / "teacher", unet=WIDE)))
    network = ConsistencyStudent.from_teacher(teacher).network
    network.network.time_embedding.cond_proj = torch.nn.Linear(4, 32)
    with pytest.raises(BootdiffError, match="told a guidance weight cannot be told other times"):
        network.retime(network.network, torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))


def test_a_pipeline_that_hands_no_generator_on_has_one_call(tmp_path):
    """A DiTPipeline's scheduler would draw noise that no seed repeats."""
    student = gently_shaken(load_teacher(str(save_dit(tmp_path / "teacher"))))
    made = export(student)
    assert (made.calls, made.any_calls) == (1, False)


def test_an_export_leaves_the_programs_random_numbers_alone(tmp_path):
    student = gently_shaken(load_teacher(str(save_sd(tmp_path / "teacher"))))
    before = torch.random.get_rng_state()
    export_student(student, tmp_path / "student", WORDS)
    assert torch.equal(torch.random.get_rng_state(), before)
    sampler = StockStudent(tmp_path / "student")
    assert sampler.told_weight(1.0) is not None  # it learned no guidance, and its slot reads nothing
    with pytest.raises(BootdiffError, match="folded in"):
        sampler.told_weight(3.0)


def test_a_student_of_few_times_is_measured_at_as_many_calls_as_it_has(tmp_path):
    from bootdiff.samplers.several import student_samplers

    student = ConsistencyStudent.from_teacher(load_teacher(str(save_sd(tmp_path / "teacher"))), t_max=1.0)
    student.points = 5
    assert [called.calls for called in student_samplers(student)] == [1, 2, 4]
