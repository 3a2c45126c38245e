"""Latent consistency distillation: its step, its times, its weights, and whom it is for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bootdiff import BootdiffError, Gaussian, load_teacher
from bootdiff.core.condition import Condition
from bootdiff.core.randomness import sample_noise
from bootdiff.core.turn import Turn
from bootdiff.data.sources import Batch
from bootdiff.distillation.distill import distill
from bootdiff.distillation.plan import plan_distillation
from bootdiff.losses.grids import SkippingGrid
from bootdiff.methods.lcm import WEIGHTS, LcmSettings
from bootdiff.methods.registry import find_method
from bootdiff.students.boundary import LcmSkip
from bootdiff.teachers.guidance import Guided
from test_siblings import Calls, Draws
from tiny_pipelines import save_sd, save_sdxl
from tiny_unet import save_teacher

FAST = {"steps": 2, "batch_size": 4, "watch_every": 0, "sample_every": 0, "pairs": 4, "pair_steps": 2, "grid": 20}


def test_its_times_are_every_kth_timestep_and_the_one_below():
    grid = SkippingGrid(1000, 1.0, 50, 0.95)
    draw = Draws({"step": torch.tensor([0, 1, 49, 99])})
    t, s, weight = grid(Turn("student", 0, 0.0, draw), "cpu")
    assert (t * 999).round().tolist() == [19, 39, 999, 999]
    assert (s * 999).round().tolist() == [0, 19, 979, 979]  # below the first one there is timestep 0
    assert weight.tolist() == [1, 1, 1, 1] and grid.averages and grid.decay(7) == 0.95
    assert not SkippingGrid(1000, 1.0, 50, 0.0).averages


def guided_step(scheduler, network, x, text, empty, weights, high, low):
    """DDIM of the scheduler's own table with eps = eps_∅ + w (eps_c − eps_∅), from one timestep to another, by hand."""
    products = scheduler.alphas_cumprod.double()
    made = []
    for i in range(len(x)):
        told = torch.tensor([high[i]])
        with torch.no_grad():
            conditional = network(x[i : i + 1], told, encoder_hidden_states=text[i : i + 1]).sample.double()
            free = network(x[i : i + 1], told, encoder_hidden_states=empty).sample.double()
        eps = free + weights[i].item() * (conditional - free)
        here, there = products[high[i]], products[low[i]]
        x_0 = (x[i : i + 1].double() - (1 - here).sqrt() * eps) / here.sqrt()
        made.append(there.sqrt() * x_0 + (1 - there).sqrt() * eps)
    return torch.cat(made).float()


def test_its_target_is_asked_where_one_guided_step_over_many_timesteps_leads(tmp_path):
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    folder = save_sd(tmp_path / "teacher")
    teacher = load_teacher(str(folder))
    text, empty = sample_noise(1, 0, 3, (77, 32)), sample_noise(2, 0, 1, (77, 32))
    width = teacher.denoiser.adapter.text_shape()[1]
    text, empty = text[..., :width], empty[..., :width]
    guided = Guided(teacher, Condition({"text": empty}))
    asked = LcmSettings(steps=2, batch_size=3, grid=50, t_max=1.0)

    class Source:
        kind, data_free = "pairs", True

    objective = find_method("lcm").build(guided, asked, Source())
    assert objective.student.module.boundary == LcmSkip() and objective.student.module.points == 50
    x, noise, weights = sample_noise(3, 0, 3, teacher.shape), sample_noise(4, 0, 3, teacher.shape), [3.0, 7.5, 12.0]
    seen = {}
    noting = {
        "student": Calls(lambda x, t, c: (seen.update(here=(x, t, c)), x)[1]),
        "student@target": Calls(lambda x, t, c: (seen.update(there=(x, t)), x)[1]),
    }
    numbers = torch.tensor([0, 20, 44])
    turn = Turn("student", 0, 0.0, Draws({"noise": noise, "step": numbers}))
    condition = Condition({"text": text, "guidance": torch.tensor(weights)})
    (term,) = objective.losses(noting, turn, Batch(noise, data=x, condition=condition))
    term()
    high, low = [19, 419, 899], [0, 399, 879]
    table = DDIMScheduler.from_config(StableDiffusionPipeline.from_pretrained(folder).scheduler.config)
    products = table.alphas_cumprod[high].view(-1, 1, 1, 1)
    x_t = products.sqrt() * x + (1 - products).sqrt() * noise
    torch.testing.assert_close(seen["here"][0], x_t, atol=1e-5, rtol=1e-4)
    assert torch.equal(seen["here"][2]["guidance"], torch.tensor(weights))  # what the student is told
    exact = guided_step(table, teacher.denoiser.network, x_t, text, empty, torch.tensor(weights), high, low)
    torch.testing.assert_close(seen["there"][0], exact, atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(seen["there"][1] * 999, torch.tensor(low).float(), atol=1e-3, rtol=0)


def test_gradients_reach_the_student_alone_and_the_first_answer_at_timestep_0_is_the_point_itself(tmp_path):
    student = distill(
        str(save_sd(tmp_path / "teacher")), tmp_path / "run", LcmSettings(**FAST, **prompts_in(tmp_path)), "lcm"
    )
    assert student.points == 20 and student.guidance == tuple(WEIGHTS)
    x = sample_noise(0, 0, 2, student.shape)
    condition = student.adapter.blank(2).add(guidance=torch.tensor([3.0, 9.0]))
    alpha = student.schedule.alpha_sigma(torch.zeros(1))[0].item()
    torch.testing.assert_close(student(x, torch.zeros(2), condition), x / alpha, atol=1e-6, rtol=1e-6)
    last = student.schedule.num_timesteps - 1
    assert (round(student.t_max * last) + 1) % 20 == 0  # so that LCMScheduler starts where the student does


def prompts_in(folder) -> dict:
    path = folder / "prompts.txt"
    path.write_text("a cat\na dog\n")
    return {"prompts": str(path)}


def test_a_weight_or_a_range_takes_the_place_of_the_papers_range():
    assert LcmSettings(steps=1).guidance_range == list(WEIGHTS)
    assert LcmSettings(steps=1, guidance_range=[1.0, 4.0]).guidance_range == [1.0, 4.0]
    one = LcmSettings(steps=1, guidance_scale=5.0)
    assert (one.guidance_range, one.guidance_scale) == (None, 5.0)
    assert LcmSettings(**one.model_dump()).guidance_range is None  # as a resumed run reads it


@pytest.mark.parametrize("save", [save_teacher, None])
def test_other_teachers_are_told_to_take_consistency(save, tmp_path):
    teacher = str(save(tmp_path / "teacher")) if save is not None else Gaussian(0.5, 0.5, (2,))
    with pytest.raises(BootdiffError, match=r"latent Stable Diffusion .*; take --method consistency\.") as met:
        plan_distillation(teacher, tmp_path / "run", LcmSettings(**FAST), "lcm")
    assert "\n" not in str(met.value) and not (tmp_path / "run").exists()


def test_a_student_of_other_times_is_not_gone_on_with(tmp_path):
    teacher = str(save_sd(tmp_path / "teacher"))
    distill(teacher, tmp_path / "run", LcmSettings(**FAST, **prompts_in(tmp_path)), "lcm")
    more = {**FAST, **prompts_in(tmp_path), "start": str(tmp_path / "run")}
    with pytest.raises(BootdiffError, match="lcm student of the same grid"):
        distill(teacher, tmp_path / "more", LcmSettings(**{**more, "grid": 10}), "lcm")
    again = distill(teacher, tmp_path / "again", LcmSettings(**more), "lcm")
    assert again.guidance == WEIGHTS  # those that the student learned
    assert again.points == 20 and isinstance(again, nn.Module)


@pytest.mark.parametrize(
    "words, match",
    [
        ({"grid": 700}, "grid 700 does not divide the 1000 timesteps up to t_max: it reaches 700; take another"),
        ({"grid": 1000, "t_max": 0.5}, "grid should be at most 501, the timesteps up to t_max, got 1000"),
        ({"t_min": 0.1}, "lcm ends at timestep 0, as LCMScheduler does, not at 0.1; leave t_min out"),
    ],
)
def test_times_that_lcm_scheduler_has_not_are_refused(words, match, tmp_path):
    with pytest.raises(BootdiffError, match=match):
        asked = LcmSettings(**{**FAST, **prompts_in(tmp_path), "t_max": 1.0, **words})
        plan_distillation(str(save_sdxl(tmp_path / "teacher")), tmp_path / "run", asked, "lcm")


def test_a_correction_goes_on_with_the_same_weights(tmp_path):
    kind = find_method("lcm+dm").settings
    words = {"steps": 2, "batch_size": 2, "watch_every": 0, "fake_warmup": 0, **prompts_in(tmp_path)}
    both = kind(**words, lcm={"steps": 1, "pairs": 2, "pair_steps": 2, "grid": 20})
    assert both.guidance_range == both.first.guidance_range == list(WEIGHTS)
    student = distill(str(save_sd(tmp_path / "teacher")), tmp_path / "run", both, "lcm+dm")
    assert student.guidance == WEIGHTS
