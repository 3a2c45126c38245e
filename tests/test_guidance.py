"""Classifier-free guidance: against its formula, and against what the stock pipelines make of the same prompts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tiny_pipelines as tiny
from bootdiff.core.condition import Condition
from bootdiff.core.randomness import sample_noise
from bootdiff.methods.boot import Boot, BootSettings
from bootdiff.schedules import Cosine
from bootdiff.solvers import ddim
from bootdiff.students import Student
from bootdiff.teachers import CallableTeacher, Clip, Guided, Limited, guided, load_teacher
from bootdiff.teachers.encoding import PromptEncoder
from family_table import as_tensor

WORDS = ["a red cat", "the blue dog"]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.tensor([[0.0], [1.0], [3.0]]))
        self.batches = []

    def forward(self, x, timestep, classes, guidance=None):
        self.batches.append(len(x))
        return self.table[classes].expand(-1, 3) * x


def test_guidance_is_its_formula_in_one_batch_and_is_limited_afterwards():
    teacher = CallableTeacher(Net(), Cosine(), "sample", (3,))
    x, t = torch.randn(4, 3), torch.full((4,), 0.5)
    condition = Condition({"classes": torch.tensor([1, 2, 1, 2])})
    null = Condition({"classes": torch.tensor([0])})
    plain = teacher.x0(x, t, condition)
    teacher.network.batches.clear()
    torch.testing.assert_close(Guided(teacher, null, 2.5).x0(x, t, condition), 2.5 * plain)  # n answers 0
    assert teacher.network.batches == [8]
    weights = torch.tensor([1.0, 2.0, 3.0, 0.0])
    drawn = Guided(teacher, null).x0(x, t, condition.add(guidance=weights))
    torch.testing.assert_close(drawn, weights[:, None] * plain)
    limited = guided(Limited(teacher, Clip(0.1)), null, 2.5)
    assert isinstance(limited, Limited)
    torch.testing.assert_close(limited.x0(x, t, condition), (2.5 * plain).clamp(-0.1, 0.1))


def stock_latents(pipe, steps: int, **call) -> torch.Tensor:
    generators = [torch.Generator("cpu").manual_seed(5 + i) for i in range(2)]
    pipe.set_progress_bar_config(disable=True)
    return pipe(WORDS, num_inference_steps=steps, generator=generators, output_type="latent", **call).images


def ours(teacher, weight: float, negative: str | None, times: list[float], condition=None) -> torch.Tensor:
    encoder = PromptEncoder(teacher.denoiser.adapter)
    condition = encoder(WORDS) if condition is None else condition
    model = guided(teacher, encoder.negative(negative), weight) if weight != 1 else teacher
    return ddim(model, sample_noise(5, 0, 2, teacher.shape), times, condition)


@pytest.mark.parametrize("make", [tiny.save_sd, tiny.save_sdxl])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("negative", [None, "a dog"])
def test_sampling_with_guidance_is_the_stock_pipelines(tmp_path, make, prediction, negative):
    from diffusers import DDIMScheduler, DiffusionPipeline

    folder = make(tmp_path / "t", prediction_type=prediction)
    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.scheduler = DDIMScheduler.from_config(
        pipe.scheduler.config, clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing"
    )
    # 4 divides 1000: else DDIM's own "previous timestep" is not the one that it visits next.
    stock = stock_latents(pipe, 4, guidance_scale=4.0, negative_prompt=negative and [negative] * 2)
    teacher = load_teacher(str(folder))
    times = [t / 999 for t in pipe.scheduler.timesteps.tolist()]
    made = ours(teacher, 4.0, negative, times)
    torch.testing.assert_close(made, stock, rtol=0, atol=2e-5 * float(stock.abs().max()))
    other = ours(teacher, 4.0, "the red photo of a cat", times)
    assert float((other - stock).abs().max()) > 1e-3 * float(stock.abs().max()), "the negative prompt has no effect"


def test_sampling_a_flow_with_guidance_is_the_stock_pipelines(tmp_path):
    from diffusers import DiffusionPipeline

    folder = tiny.save_sd3(tmp_path / "t")
    pipe = DiffusionPipeline.from_pretrained(folder)
    stock = stock_latents(pipe, 3, guidance_scale=4.0, negative_prompt="a dog")
    teacher = load_teacher(str(folder))
    times = [float(teacher.schedule.time(t)) for t in pipe.scheduler.timesteps]
    made = ours(teacher, 4.0, "a dog", times)
    torch.testing.assert_close(made, stock, rtol=0, atol=2e-5 * float(stock.abs().max()))
    assert teacher.t_range[1] == 1 and teacher.schedule.shift == 3


@pytest.mark.parametrize("embedded", [True, False])
def test_sampling_flux_is_the_stock_pipelines(tmp_path, embedded):
    from diffusers import DiffusionPipeline

    folder = tiny.save_flux(tmp_path / "t", guidance_embeds=embedded)
    pipe = DiffusionPipeline.from_pretrained(folder)
    call = {"guidance_scale": 2.5, "height": 16, "width": 16}
    stock = stock_latents(pipe, 3, **call)
    teacher = load_teacher(str(folder), size=16)
    condition = PromptEncoder(teacher.denoiser.adapter)(WORDS)
    if embedded:
        condition = condition.add(guidance=torch.full((2,), 2.5))
    times = [float(teacher.schedule.time(t)) for t in pipe.scheduler.timesteps]
    made = ours(teacher, 1.0, None, times, condition)
    stock = pipe._unpack_latents(stock, 16, 16, pipe.vae_scale_factor)
    torch.testing.assert_close(made, stock, rtol=0, atol=2e-5 * float(stock.abs().max()))
    assert teacher.schedule.shift != 1, "the shift of its times depends on the size"


def test_classes_with_guidance_are_the_stock_dit_pipelines(tmp_path):
    from diffusers import DiffusionPipeline

    folder = tiny.save_dit(tmp_path / "t", classes=1000)
    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = type(pipe.scheduler).from_config(
        pipe.scheduler.config, timestep_spacing="trailing", set_alpha_to_one=True
    )
    generators = [torch.Generator("cpu").manual_seed(5 + i) for i in range(2)]
    call = {"class_labels": [7, 400], "guidance_scale": 4.0, "num_inference_steps": 4, "output_type": "pt"}
    stock = as_tensor(pipe(generator=generators, **call).images)
    teacher = load_teacher(str(folder))
    adapter = teacher.denoiser.adapter
    model = guided(teacher, Condition({"classes": torch.tensor([adapter.null_class])}), 4.0)
    times = [t / 999 for t in pipe.scheduler.timesteps.tolist()]
    made = ddim(model, sample_noise(5, 0, 2, teacher.shape), times, Condition({"classes": torch.tensor([7, 400])}))
    torch.testing.assert_close((adapter.decode(made) / 2 + 0.5).clamp(0, 1), stock, rtol=0, atol=1e-4)


@pytest.mark.parametrize("stage", ["base", "upscaler"])
def test_a_guided_pixel_stage_thresholds_like_its_stock_scheduler(tmp_path, stage):
    from diffusers import DDPMScheduler

    make = tiny.save_if if stage == "base" else tiny.save_if_sr
    teacher = load_teacher(str(make(tmp_path / "t")))
    adapter = teacher.denoiser.adapter
    encoder = PromptEncoder(adapter)
    condition, null = encoder(WORDS), encoder.negative("a dog")
    x = sample_noise(0, 0, 2, teacher.shape)
    if stage == "upscaler":
        condition = condition.add(**adapter.upscaled(x[:, :, ::2, ::2], x, 250))
    timestep = torch.full((2,), 600.0)
    made = guided(teacher, null, 3.0).x0(x, teacher.schedule.time(timestep), condition)
    with torch.no_grad():
        eps_c, eps_n = (
            adapter.call(teacher.denoiser.network, x, timestep, c)
            for c in (condition, condition.add(text=null["text"].expand(2, -1, -1)))
        )
    scheduler = DDPMScheduler.from_config(teacher.denoiser.scheduler_config, variance_type="fixed_small")
    eps = eps_n + 3.0 * (eps_c - eps_n)
    stock = [scheduler.step(eps[i : i + 1], 600, x[i : i + 1]).pred_original_sample for i in range(2)]
    torch.testing.assert_close(made, torch.cat(stock), rtol=0, atol=1e-4)
    assert teacher.limit.ratio == 0.95 and teacher.limit.maximum == (1.5 if stage == "base" else 1.0)


def test_a_range_is_an_input_of_the_student_and_changes_nothing_at_first(tmp_path):
    teacher = load_teacher(str(tiny.save_class_unet(tmp_path / "t")))
    student = Student.from_teacher(teacher, guidance=(1.0, 4.0))
    eps, t = sample_noise(0, 0, 2, teacher.shape), torch.full((2,), 0.3)
    condition = Condition({"classes": torch.tensor([0, 1])})
    low, high = (condition.add(guidance=torch.full((2,), w)) for w in (1.0, 4.0))
    assert torch.equal(student(eps, t, low), student(eps, t, high))
    with torch.no_grad():
        for parameter in student.network.weight.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    assert float((student(eps, t, low) - student(eps, t, high)).abs().max()) > 1e-3
    for weight, told in ((1.0, low), (4.0, high)):
        expected = student.sample(eps, told)
        torch.testing.assert_close(student.one_step(weight)(eps, condition), expected, rtol=0, atol=1e-4)


def test_the_targets_are_guided_and_the_student_gets_the_same_weights(tmp_path):
    """(10) replaces f in (8) and (9): seen by what the teacher and the student are asked."""
    teacher = load_teacher(str(tiny.save_class_unet(tmp_path / "t")))
    asked = Guided(teacher.inner, Condition({"classes": torch.tensor([3])}))
    settings = BootSettings(guidance_range=[1.0, 4.0], steps=4, batch_size=6)
    from bootdiff.core.randomness import Draw
    from bootdiff.core.turn import Turn
    from bootdiff.data.conditions import Classes, Weighted
    from bootdiff.data.sources import Noise

    objective = Boot.from_settings(asked, settings, Noise(asked.shape, Weighted(Classes([0, 1, 2]), 1.0, 4.0, 2.5)))
    draw = Draw(0, 0, "student", 0, 6, 6)
    batch = objective.source.batch(draw)
    weights = batch.condition["guidance"]
    assert bool(((weights >= 1) & (weights <= 4)).all()) and len(set(weights.tolist())) == 6
    edge = objective.losses({"student": objective.student.module}, Turn("student", 0, 0.0, draw), batch)[1]()
    t_max = torch.full((6,), objective.t_max)
    c, n = batch.condition, batch.condition.add(classes=torch.full((6,), 3))
    f_c, f_n = (teacher.inner.x0(batch.noise, t_max, k) for k in (c, n))
    target = (f_n + weights[:, None, None, None] * (f_c - f_n)).clamp(-1, 1)
    y = objective.student.module(batch.noise, t_max, batch.condition)
    torch.testing.assert_close(edge.scalars["boundary"], (y - target).square().flatten(1).mean(1).mean().detach())
