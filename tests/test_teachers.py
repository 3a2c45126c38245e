"""Teachers: x_0 equals diffusers' own, wrappers limit it, what cannot be read is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DModel

from bootdiff.errors import BootdiffError
from bootdiff.schedules import EDM, Cosine, RectifiedFlow, SigmaTime
from bootdiff.teachers import CallableTeacher, Clip, DynamicThreshold, Gaussian, Limited, Mixture, load_teacher
from bootdiff.teachers.prediction import PREDICTIONS
from conftest import save_teacher


@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v_prediction"])
@pytest.mark.parametrize("limits", [{}, {"clip_sample": False}, {"thresholding": True, "sample_max_value": 1.5}])
def test_x0_equals_a_ddim_scheduler(tmp_path, prediction, limits):
    folder = save_teacher(tmp_path / "t", prediction_type=prediction, beta_schedule="linear", **limits)
    teacher = load_teacher(str(folder))
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    scheduler.set_timesteps(1000)
    network = UNet2DModel.from_pretrained(folder / "unet")
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for timestep in (5, 400, 900):
        with torch.no_grad():
            expected = scheduler.step(network(x, timestep).sample, timestep, x).pred_original_sample
            ours = teacher.x0(x, teacher.schedule.time(timestep).expand(3))
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=2e-5 / float(scheduler.alphas_cumprod[timestep]))


@pytest.mark.parametrize("prediction", PREDICTIONS.values(), ids=PREDICTIONS)
def test_predictions_round_trip(prediction):
    schedule = {"flow_prediction": RectifiedFlow(), "edm": EDM(), "score": SigmaTime()}.get(prediction.name, Cosine())
    alpha, sigma = schedule.alpha_sigma(torch.tensor([0.6]))
    x_0, eps = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    x_t = alpha * x_0 + sigma * eps
    out = prediction.output(x_0, eps, alpha, sigma)
    torch.testing.assert_close(prediction.x0(out, x_t, alpha, sigma), x_0, rtol=1e-5, atol=1e-6)


def test_the_mixture_of_one_is_the_gaussian():
    t, x = torch.tensor([0.2, 0.9]), torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    mixture = Mixture(torch.full((1, 16), 1.0), deviation=0.5)
    torch.testing.assert_close(mixture.x0(x, t), Gaussian(1.0, 0.5).x0(x, t), rtol=1e-5, atol=1e-6)


def test_the_mixture_is_the_posterior_mean():
    """Against a million samples of the joint distribution, in a window around x_t."""
    generator = torch.Generator().manual_seed(0)
    mixture = Mixture(torch.tensor([[-1.0], [2.0]]), deviation=0.3)
    t = torch.tensor([0.5])
    alpha, sigma = Cosine().alpha_sigma(t)
    x_0 = mixture.sample(1_000_000, generator)
    x_t = alpha * x_0 + sigma * torch.randn(x_0.shape, generator=generator)
    near = (x_t - 0.4).abs() < 0.02
    ours = mixture.x0(torch.tensor([[0.4]]), t)
    assert float(ours) == pytest.approx(float(x_0[near].mean()), abs=0.03)


def test_limits():
    x = torch.tensor([[[[3.0, -0.5, 0.2, -2.0]]]])
    assert Clip()(x).abs().max() == 1
    thresholded = DynamicThreshold(ratio=1.0, maximum=5.0)(x)
    torch.testing.assert_close(thresholded, x / 3)
    teacher = Limited(Gaussian(mean=4.0, shape=(2,)), Clip())
    assert float(teacher.x0(torch.zeros(1, 2), torch.tensor([0.9])).max()) == 1


def test_t_range_stops_where_alpha_is_too_small(tiny):
    teacher = load_teacher(str(tiny))
    low, high = teacher.t_range
    alpha, _ = teacher.schedule.alpha_sigma(torch.tensor([high, high + 1 / 999]))
    assert low == 0 and alpha[0] >= 0.02 > alpha[1]


def test_a_teacher_s_weights_never_learn(tiny):
    teacher = load_teacher(str(tiny))
    x = torch.randn(1, 1, 8, 8, requires_grad=True)
    teacher.x0(x, torch.tensor([0.5])).sum().backward()
    assert x.grad is not None
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())


def test_a_plain_module_is_a_teacher():
    network = torch.nn.Bilinear(2, 1, 2)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network

        def forward(self, x, timestep):
            return self.inner(x, timestep[:, None] / 999)

    teacher = CallableTeacher(Net(), Cosine(), "epsilon", (2,))
    x, t = torch.randn(3, 2), torch.tensor([0.1, 0.5, 0.9])
    alpha, sigma = (v[:, None] for v in Cosine().alpha_sigma(t))
    torch.testing.assert_close(teacher.x0(x, t), (x - sigma * network(x, t[:, None])) / alpha)


def broken(tiny, tmp_path, change):
    folder = shutil.copytree(tiny, tmp_path / "broken")
    change(folder)
    return str(folder)


def edit(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def poison(folder):
    network = UNet2DModel.from_pretrained(folder / "unet")
    network.conv_in.weight.data[0, 0, 0, 0] = float("nan")
    network.save_pretrained(folder / "unet")


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


def evil(folder):
    (folder / WEIGHTS).unlink()
    torch.save({"conv_in.weight": Evil()}, folder / "unet/diffusion_pytorch_model.bin")


WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
BROKEN = {
    "no model_index": (lambda f: (f / "model_index.json").unlink(), "model_index.json"),
    "no unet config": (lambda f: (f / "unet/config.json").unlink(), "config.json"),
    "config is no json": (lambda f: (f / "unet/config.json").write_text("{"), "JSON"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "safetensors"),
    "truncated weights": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:2000]), "cannot be read"),
    "safetensors called pickle": (lambda f: (f / WEIGHTS).rename(f / "unet/diffusion_pytorch_model.bin"), "cannot be"),
    "a pickle that runs code": (lambda f: evil(f), "cannot be read"),
    "weights of another net": (lambda f: edit(f / "unet/config.json", layers_per_block=2), "weights"),
    "nan weights": (poison, "not finite"),
    "class labels": (lambda f: edit(f / "unet/config.json", num_class_embeds=10), "class"),
    "unknown scheduler": (lambda f: edit(f / "scheduler/scheduler_config.json", _class_name="MyScheduler"), "MySched"),
    "unknown prediction": (lambda f: edit(f / "scheduler/scheduler_config.json", prediction_type="x"), "prediction_ty"),
    "unknown betas": (lambda f: edit(f / "scheduler/scheduler_config.json", beta_schedule="x"), "beta_schedule"),
    "other pipeline": (lambda f: edit(f / "model_index.json", unet=["diffusers", "UNet2DConditionModel"]), "supported"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder_is_refused_in_one_line(tiny, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    change, words = BROKEN[name]
    with pytest.raises(BootdiffError, match=words) as error:
        load_teacher(broken(tiny, tmp_path, change))
    assert "\n" not in str(error.value) and not (tmp_path / "ran").exists()
