"""Teachers: x_0 equals diffusers' own, wrappers limit it, what cannot be read is refused."""

import inspect
import json
import shutil
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EDMEulerScheduler, UNet2DModel

from bootdiff.core.errors import BootdiffError
from bootdiff.distillation.distill import distill
from bootdiff.distillation.plan import plan_distillation
from bootdiff.methods.boot import BootSettings
from bootdiff.schedules import EDM, BetaTable, Cosine, RectifiedFlow, SigmaTime
from bootdiff.solvers import ddim
from bootdiff.students import Student
from bootdiff.students.files import load_student
from bootdiff.teachers import CallableTeacher, Clip, DynamicThreshold, Gaussian, Limited, Mixture, load_teacher
from bootdiff.teachers.loading.scheduler import BETA_SCHEDULERS
from bootdiff.teachers.prediction import PREDICTIONS
from tiny_unet import name_scheduler, save_teacher, tiny_unet


def test_a_path_names_a_teacher_as_its_words_do(tmp_path):
    folder = save_teacher(tmp_path / "t")
    plans = [plan_distillation(name, tmp_path / "run", BootSettings(steps=2)) for name in (folder, str(folder))]
    assert plans[0].config == plans[1].config and plans[0].teacher.name == str(folder)
    assert load_teacher(folder).name == str(folder)


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


KINDS = {
    "betas": {"beta_schedule": "linear"},
    "scaled": {"beta_schedule": "scaled_linear", "num_train_timesteps": 400},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "sigmoid": {"beta_schedule": "sigmoid"},
    "given": {"trained_betas": torch.linspace(1e-4, 0.05, 300).tolist(), "num_train_timesteps": 300},
    "zero SNR": {"rescale_betas_zero_snr": True},
}


def reference(folder, kind, **fields) -> DDIMScheduler:
    """A DDIMScheduler with the betas, prediction and clipping that diffusers' own class reads from the folder."""
    theirs = getattr(diffusers, kind).from_pretrained(folder / "scheduler")
    config = inspect.signature(type(theirs).__init__).parameters
    own = {name: theirs.config[name] for name in LIMITS if name in config}
    words = {"clip_sample": False, **own, "num_train_timesteps": len(theirs.betas), **fields}
    return DDIMScheduler(trained_betas=theirs.betas.tolist(), prediction_type=theirs.config.prediction_type, **words)


LIMITS = ("clip_sample", "clip_sample_range", "thresholding", "dynamic_thresholding_ratio", "sample_max_value")


@pytest.mark.parametrize("betas", KINDS)
@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v_prediction"])
@pytest.mark.parametrize("kind", BETA_SCHEDULERS)
def test_every_scheduler_s_x0_and_ddim_equal_diffusers_ddim(tiny, tmp_path, kind, prediction, betas):
    if (betas, prediction) == ("zero SNR", "epsilon"):
        pytest.skip("undefined; refused where it matters (test_cli)")
    config = {"_class_name": kind, "prediction_type": prediction, **KINDS[betas]}
    folder = shutil.copytree(tiny, tmp_path / "t")
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(config))
    name_scheduler(folder, kind)
    teacher = load_teacher(str(folder))
    try:
        scheduler = reference(folder, kind, timestep_spacing="trailing", set_alpha_to_one=False)
    except (NotImplementedError, ImportError):
        pytest.skip("diffusers' own class does not take such betas, or its dependency is missing")
    assert isinstance(teacher, Limited) == (scheduler.config.clip_sample or scheduler.config.thresholding)
    count = len(scheduler.betas)
    network, x = teacher.denoiser.network, torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        scheduler.set_timesteps(count)
        for timestep in (0, count // 2, int(0.9 * count)):
            expected = scheduler.step(network(x, timestep).sample, timestep, x).pred_original_sample
            ours = teacher.x0(x, teacher.schedule.time(timestep).expand(2))
            scale = float(expected.abs().max())
            torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4 * scale)
        if prediction != "epsilon":  # a random network that predicts noise makes numbers too large to compare
            scheduler.set_timesteps(5)
            state = x
            for timestep in scheduler.timesteps:
                out = network(state, timestep).sample
                # The step then goes towards the clipped x_0, as Eq. 2 does; diffusers leaves that to the caller.
                step = scheduler.step(out, timestep, state, use_clipped_model_output=True)
                state = step.prev_sample
            ours = ddim(teacher, x, [float(teacher.schedule.time(t)) for t in scheduler.timesteps])
            torch.testing.assert_close(ours, step.pred_original_sample, rtol=1e-3, atol=1e-3)


def test_a_v_teacher_with_zero_terminal_snr_answers_at_the_very_end(tmp_path):
    folder = save_teacher(tmp_path / "t", prediction_type="v_prediction", rescale_betas_zero_snr=True)
    teacher = load_teacher(str(folder)).denoiser
    x = torch.randn(2, 1, 8, 8)
    ours = teacher.x0(x, torch.ones(2))
    torch.testing.assert_close(ours, -teacher.network(x, 999).sample)
    assert float(teacher.schedule.alpha_sigma(torch.ones(1))[0]) == 0
    student = Student.from_teacher(teacher, 0.0, 1.0)
    torch.testing.assert_close(student(x, torch.tensor([0.2, 1.0])), ours)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_edm_equals_its_scheduler(tmp_path, prediction):
    config = {"_class_name": "EDMEulerScheduler", "sigma_min": 0.01, "sigma_max": 40.0, "sigma_data": 0.7}
    folder = save_teacher(tmp_path / "t", channels=3, scheduler={**config, "prediction_type": prediction})
    teacher = load_teacher(str(folder))
    scheduler = EDMEulerScheduler.from_pretrained(folder / "scheduler")
    scheduler.set_timesteps(6)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    state = 40.0 * x
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            seen = scheduler.scale_model_input(state, timestep)
            step = scheduler.step(teacher.network(seen, timestep).sample, timestep, state)
            state = step.prev_sample
    times = [float(teacher.schedule.time(t)) for t in scheduler.timesteps]
    torch.testing.assert_close(ddim(teacher, x, times), step.pred_original_sample, rtol=1e-4, atol=1e-4)


def test_a_score_is_read_as_its_formula():
    """From Python: score pipelines are refused, because their images lie in [0, 1]."""
    schedule, x, sigma = SigmaTime(0.05, 30.0), 10 * torch.randn(2, 3), torch.tensor([3.0, 20.0])

    class Network(torch.nn.Module):
        def forward(self, x, timestep):
            return -x / timestep[:, None] ** 2 + 1

    teacher = CallableTeacher(Network(), schedule, "score", (3,))
    expected = (sigma**2)[:, None].expand(2, 3)
    torch.testing.assert_close(teacher.x0(x, schedule.time(sigma)), expected, rtol=1e-4, atol=1e-3)


def test_a_class_s_own_defaults_are_read(tiny, tmp_path):
    """Heun's betas run from 0.00085 to 0.012; Euler does not clip, whatever its config has inherited."""
    folder = shutil.copytree(tiny, tmp_path / "t")
    for config, limited in (({"_class_name": "HeunDiscreteScheduler"}, False),
                            ({"_class_name": "EulerDiscreteScheduler", "clip_sample": True}, False),
                            ({"_class_name": "DDPMScheduler"}, True)):  # fmt: skip
        (folder / "scheduler/scheduler_config.json").write_text(json.dumps(config))
        name_scheduler(folder, config["_class_name"])
        teacher = load_teacher(str(folder))
        theirs = getattr(diffusers, config["_class_name"]).from_pretrained(folder / "scheduler")
        alpha, _ = teacher.schedule.alpha_sigma(torch.tensor([0.5]))
        expected = theirs.alphas_cumprod.sqrt()[[499, 500]].mean()
        assert float(alpha) == pytest.approx(float(expected), rel=1e-3)
        assert isinstance(teacher, Limited) == limited


def test_betas_that_leave_no_signal_are_refused(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "t")
    config = {"_class_name": "DDPMScheduler", "beta_start": 0.9999, "beta_end": 0.9999, "prediction_type": "epsilon"}
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(config))
    with pytest.raises(BootdiffError, match="no time with alpha"):
        _ = load_teacher(str(folder)).t_range


def test_zero_terminal_snr_may_start_at_the_very_end(tmp_path):
    folder = save_teacher(tmp_path / "t", prediction_type="v_prediction", rescale_betas_zero_snr=True)
    plan = plan_distillation(str(folder), tmp_path / "run", BootSettings(t_max=1.0))
    assert plan.settings.t_max == 1.0


def test_noise_that_no_scheduler_can_hold_is_refused_before_the_training(tmp_path):
    config = {"_class_name": "EDMEulerScheduler", "sigma_max": 5000.0}
    folder = save_teacher(tmp_path / "t", scheduler=config)
    _, high = load_teacher(str(folder)).t_range
    assert 0.5 < high < 1 and plan_distillation(str(folder), tmp_path / "run").settings.t_max == high
    with pytest.raises(BootdiffError, match="lower t_max"):
        plan_distillation(str(folder), tmp_path / "run", BootSettings(t_max=1.0))


def test_of_a_learned_variance_the_image_is_read(tmp_path):
    folder = save_teacher(
        tmp_path / "t", unet={"out_channels": 2}, scheduler={"variance_type": "learned_range"}, clip_sample=False
    )
    teacher, x = load_teacher(str(folder)), torch.randn(2, 1, 8, 8)
    scheduler = DDPMScheduler.from_pretrained(folder / "scheduler")
    with torch.no_grad():
        out = teacher.network(x, 500).sample
        expected = scheduler.step(out, 500, x).pred_original_sample
    assert teacher.shape == (1, 8, 8) and out.shape[1] == 2
    torch.testing.assert_close(teacher.x0(x, teacher.schedule.time(500).expand(2)), expected)


def test_a_network_with_a_table_is_told_the_nearest_timestep(tmp_path):
    unet = {"time_embedding_type": "learned", "num_train_timesteps": 1000}
    teacher, x = load_teacher(str(save_teacher(tmp_path / "t", unet=unet))).denoiser, torch.randn(1, 1, 8, 8)
    with torch.no_grad():
        expected = teacher.network(x, torch.tensor([300])).sample
        for t in (299.6 / 999, 300.4 / 999):
            assert torch.equal(teacher.x0(x, torch.tensor([t])), expected)


def test_a_diffusers_network_is_a_callable_teacher_too(tmp_path):
    network = tiny_unet()
    teacher, x = CallableTeacher(network, Cosine(), "sample", (1, 8, 8)), torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(teacher.x0(x, torch.full((2,), 0.5)), network(x, torch.tensor(499.5)).sample)
    student = distill(teacher, tmp_path / "run", BootSettings(steps=2, batch_size=2, sample_every=0))
    again = load_student(tmp_path / "run", teacher)
    assert torch.equal(again.sample(x), student.sample(x))


def test_a_network_that_does_not_fit_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(BootdiffError, match="fails on an image"):
        distill(CallableTeacher(tiny_unet(), Cosine(), "sample", (3, 8, 8)), tmp_path / "run")
    with pytest.raises(BootdiffError, match="answers with shape"):
        distill(CallableTeacher(Narrow(), Cosine(), "sample", (3, 4)), tmp_path / "run")
    with pytest.raises(BootdiffError, match="CallableTeacher"):
        distill(tiny_unet(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_callable_is_told_integers_if_it_asks(tmp_path):
    class Table(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(1000, 2)

        def forward(self, x, timestep):
            return x + self.embed(timestep)

    network = Table()
    teacher = CallableTeacher(network, Cosine(), "sample", (2,), integer_timesteps=True)
    expected = 1 + network.embed(torch.tensor([500, 250]))
    torch.testing.assert_close(teacher.x0(torch.ones(2, 2), torch.tensor([0.5003, 0.2502])), expected)


@pytest.mark.parametrize(
    "prediction, schedule", [("v_prediction", EDM()), ("flow_prediction", Cosine()), ("edm", Cosine())]
)
def test_a_prediction_that_does_not_fit_its_schedule_is_refused(prediction, schedule):
    with pytest.raises(BootdiffError, match="does not fit"):
        CallableTeacher(torch.nn.Linear(2, 2), schedule, prediction, (2,))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_teacher_in_half_precision_still_answers_in_float32(tiny, dtype):
    half, whole = load_teacher(str(tiny), dtype=dtype), load_teacher(str(tiny))
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([0.3, 0.8])
    assert next(half.parameters()).dtype == getattr(torch, dtype)
    assert half.x0(x, t).dtype == torch.float32
    torch.testing.assert_close(half.x0(x, t), whole.x0(x, t), rtol=0, atol=0.05)
    assert half.denoiser.origin.options == {"dtype": dtype}


def test_old_and_flat_folders_and_variants_are_read_alike(tiny, tmp_path):
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([0.3, 0.8])
    expected = load_teacher(str(tiny)).x0(x, t)
    network = UNet2DModel.from_pretrained(tiny / "unet")
    flat = shutil.copytree(tiny, tmp_path / "flat")
    for part in ("unet", "scheduler"):
        for file in (flat / part).iterdir():
            file.rename(flat / file.name)
        (flat / part).rmdir()
    old = shutil.copytree(tiny, tmp_path / "old")
    (old / WEIGHTS).unlink()
    torch.save(network.state_dict(), old / "unet/diffusion_pytorch_model.bin")
    variant = shutil.copytree(tiny, tmp_path / "variant")
    (variant / WEIGHTS).unlink()
    network.save_pretrained(variant / "unet", variant="ema")
    for teacher in (load_teacher(str(flat)), load_teacher(str(old)), load_teacher(str(variant), variant="ema")):
        assert torch.equal(teacher.x0(x, t), expected)
    with pytest.raises(BootdiffError, match="--variant"):
        load_teacher(str(variant))


@pytest.mark.parametrize("t", [0.5, 0.9, 0.987])
def test_an_exported_time_is_a_float32_beta_and_next_to_its_origin(t):
    table = BetaTable(DDPMScheduler(beta_schedule="squaredcos_cap_v2").betas)
    teacher = CallableTeacher(torch.nn.Linear(2, 2), table, "epsilon", (2,))
    snapped = teacher.nearest_start(t)
    alpha, _ = table.alpha_sigma(torch.tensor([snapped]))
    stored = (1 - torch.tensor([1 - alpha.double().item() ** 2], dtype=torch.float32)).sqrt()
    torch.testing.assert_close(alpha, stored, rtol=1e-5, atol=0)
    assert abs(snapped - t) < 1e-4 and abs(teacher.nearest_start(snapped) - snapped) < 1e-6
    assert CallableTeacher(torch.nn.Linear(2, 2), table, "sample", (2,)).nearest_start(t) == t


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


class Narrow(torch.nn.Module):
    """Gives one channel of three."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv1d(3, 1, 1)

    def forward(self, x, timestep):
        return self.layer(x)


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
    "class projections": (lambda f: edit(f / "unet/config.json", class_embed_type="timestep"), "class_embed_type"),
    "unknown scheduler": (lambda f: name_scheduler(f, "MyScheduler"), "MySched"),
    "unknown prediction": (lambda f: edit(f / "scheduler/scheduler_config.json", prediction_type="x"), "prediction_ty"),
    "unknown betas": (lambda f: edit(f / "scheduler/scheduler_config.json", beta_schedule="x"), "beta_schedule"),
    "latents": (lambda f: edit(f / "model_index.json", vqvae=["diffusers", "VQModel"]), "latents"),
    "score model": (lambda f: edit(f / "unet/config.json", time_embedding_type="fourier"), "fourier"),
    "blocks no list": (lambda f: edit(f / "unet/config.json", down_block_types=4), "down_block_types"),
    "channels no number": (lambda f: edit(f / "unet/config.json", in_channels="one"), "in_channels"),
    "not square": (lambda f: edit(f / "unet/config.json", sample_size=[8, 16]), "square"),
    "other pipeline": (
        lambda f: edit(f / "model_index.json", _class_name="XPipeline", unet=["diffusers", "UNet2DConditionModel"]),
        "a XPipeline with UNet2DConditionModel, which is not supported; supported: DDPMPipeline.*FluxPipeline",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder_is_refused_in_one_line(tiny, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    change, words = BROKEN[name]
    with pytest.raises(BootdiffError, match=words) as error:
        load_teacher(broken(tiny, tmp_path, change))
    assert "\n" not in str(error.value) and not (tmp_path / "ran").exists()
