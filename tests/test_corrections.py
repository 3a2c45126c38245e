"""Corrections: no gradient at the teacher, Gaussians pulled to it, C3's residual is BOOT's, and runs of two stages."""

import copy
import json
import shutil
import subprocess

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from bootdiff.config.settings import make_settings
from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError, Interrupted
from bootdiff.core.randomness import Draw
from bootdiff.data.conditions import Classes
from bootdiff.data.sources import Batch
from bootdiff.distillation.distill import distill
from bootdiff.distillation.memory import Need, memory_need
from bootdiff.distillation.plan import plan_distillation
from bootdiff.losses.loss_weights import SignalWeight
from bootdiff.methods import Boot, Learner, Turn
from bootdiff.methods.corrections.base import Correction
from bootdiff.methods.corrections.distribution_matching import DistributionMatching
from bootdiff.methods.corrections.fake import Fake
from bootdiff.methods.corrections.freeflow import FreeFlow
from bootdiff.methods.corrections.sid import Sid
from bootdiff.methods.registry import find_method
from bootdiff.samplers.operators import Mask
from bootdiff.samplers.refine import Kept, Refined, level_of, open_kept
from bootdiff.schedules import Cosine, RectifiedFlow
from bootdiff.solvers import Heun, even_times, noisy, solve
from bootdiff.students import Student
from bootdiff.students.files import load_student
from bootdiff.teachers import (
    CallableTeacher,
    Clip,
    Gaussian,
    Guided,
    Limited,
    NoLimit,
    adapter_of,
    guided_within,
    load_teacher,
)
from bootdiff.teachers.base import NO_CONDITION
from bootdiff.training.loop import Loop
from tiny_pipelines import (
    save_class_unet,
    save_dit,
    save_flux,
    save_if,
    save_if_sr,
    save_sd,
    save_sd3,
    save_sdxl,
)
from toys import close, command

METHODS = {"dm": DistributionMatching, "sid": Sid, "freeflow": FreeFlow}
PATH = "student-path/unet/diffusion_pytorch_model.safetensors"


def turn(name: str = "student", step: int = 0, size: int = 32) -> Turn:
    return Turn(name, step, 0.0, Draw(0, step, name, 0, size, size))


class Net(nn.Module):
    def __init__(self, seed: int = 3) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 4)

    def forward(self, x, timestep):
        return self.b(torch.tanh(self.a(torch.cat([x, timestep[:, None] / 999], 1))))


def small(prediction: str = "sample", schedule=None) -> tuple[CallableTeacher, Student]:
    teacher = CallableTeacher(Net(), schedule or Cosine(), prediction, (4,))
    return teacher, Student.from_teacher(teacher, 0.02, 0.9)


def correction(kind: type[Correction], teacher, student, fake=None, **fields) -> Correction:
    boot = Boot(teacher, Learner(student, 1e-3), delta=0.05)
    fake = Learner(fake or Fake.from_teacher(teacher), 1e-3)
    return kind(boot.student, boot.source, teacher, fake, boot, **fields)


def networks(objective: Correction) -> dict[str, nn.Module]:
    return {name: learner.module for name, learner in objective.learners().items()}


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize(
    "prediction, schedule",
    [("sample", Cosine()), ("epsilon", Cosine()), ("v_prediction", Cosine()), ("flow_prediction", RectifiedFlow())],
)
@pytest.mark.parametrize("name", METHODS)
def test_at_the_teacher_the_correction_is_zero_and_away_from_it_not(name, prediction, schedule, rank):
    """f_psi = f: the gradient on the student's samples is 0, whatever they are."""
    teacher, student = small(prediction, schedule)
    objective = correction(METHODS[name], teacher, student, Fake.from_teacher(teacher, rank=rank))
    batch = objective.source.batch(turn().draw)
    r = torch.linspace(0.1, 0.9, len(batch.noise))
    x = torch.randn(len(r), 4, generator=torch.Generator().manual_seed(1)).requires_grad_(True)

    def gradient() -> torch.Tensor:
        alpha, sigma = (v[:, None] for v in schedule.alpha_sigma(r))
        loss, _ = objective.compare(networks(objective), x, alpha * x + sigma * batch.noise, r, batch.condition)
        return torch.autograd.grad(loss, x)[0]

    assert gradient().abs().max() < 1e-6
    with torch.no_grad():
        for parameter in objective.fake.module.parameters():
            parameter.add_(0.1 * torch.ones_like(parameter))
    assert gradient().abs().max() > 1e-4


class Affine(nn.Module):
    """A student that answers mean + deviation · eps at every time."""

    def __init__(self, teacher, mean: float, deviation: float) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.full(teacher.shape, mean))
        self.deviation = nn.Parameter(torch.full(teacher.shape, deviation))

    def forward(self, eps, t, condition):
        return self.mean + self.deviation * eps


class Exact(nn.Module):
    """The best fake there is: the Gaussian denoiser of the student as it stands, asked of noise of this deviation."""

    def __init__(self, student: Affine, schedule, noise_scale: float = 1.0) -> None:
        super().__init__()
        self.student, self.schedule, self.noise_scale = [student], schedule, noise_scale

    def forward(self, x_r, r, condition):
        student = self.student[0]
        alpha, sigma = (v[:, None] for v in self.schedule.alpha_sigma(r))
        mean, deviation = student.mean.detach(), self.noise_scale * student.deviation.detach()
        gain = alpha * deviation**2 / (alpha**2 * deviation**2 + sigma**2)
        return mean + gain * (x_r - alpha * mean)

    def weight(self, r):
        return torch.ones_like(r)


def pulled(name: str, start: tuple[float, float], sign: float = 1.0, **fields) -> tuple[float, float]:
    """Mean and deviation after 500 steps with the exact fake."""
    teacher = Gaussian(1.0, 0.5, (16,))
    student = Affine(teacher, *start)
    stand_in = Student.from_teacher(teacher, 0.0, 0.9)
    fake = Exact(student, teacher.schedule, fields.get("noise_scale", 1.0))
    objective = correction(METHODS[name], teacher, stand_in, fake, **fields)
    known = {"student": student, "fake": objective.fake.module}
    optimiser = torch.optim.Adam(student.parameters(), 0.02, betas=(0.0, 0.999))
    for step in range(500):
        for group in optimiser.param_groups:
            group["lr"] = 0.02 * (1 - step / 500)
        when = turn(step=step, size=64)
        optimiser.zero_grad()
        batch = objective.scaled(objective.source.batch(when.draw))
        x = objective.sample(known, batch.noise, batch.condition)
        r = objective.draw_levels(when)
        alpha, sigma = (v[:, None] for v in teacher.schedule.alpha_sigma(r))
        noise = when.draw.normal("renoise", (16,))
        (sign * objective.compare(known, x, alpha * x + sigma * noise, r, batch.condition)[0]).backward()
        optimiser.step()
    return student.mean.mean().item(), student.deviation.abs().mean().item()


@pytest.mark.parametrize("start", [(-1.0, 0.2), (2.0, 1.5)])
@pytest.mark.parametrize("name", METHODS)
def test_a_gaussian_is_pulled_to_the_teachers_mean_and_deviation(name, start):
    mean, deviation = pulled(name, start)
    assert abs(mean - 1) < 0.02 and abs(deviation - 0.5) < 0.02


@pytest.mark.parametrize("name", METHODS)
def test_a_student_that_learned_from_cooler_noise_is_more_varied(name):
    """Noise of deviation 0.8 makes the teacher's samples, so noise of deviation 1 makes 1 / 0.8 of their deviation."""
    mean, deviation = pulled(name, (1.3, 0.7), noise_scale=0.8)
    assert abs(mean - 1) < 0.02 and abs(deviation - 0.5 / 0.8) < 0.03


CRITIC = {"critic_weight": 0.1}


@pytest.mark.parametrize("name, words", [*((name, {}) for name in METHODS), ("dm", CRITIC), ("sid", CRITIC)])
def test_every_turn_learns_from_noise_of_the_same_deviation(name, words, monkeypatch):
    """The fake and the critic must know the samples that the student is corrected by."""
    teacher, method, seen = load_teacher("digits"), find_method(name), {}

    def sample(self, networks, eps, condition):
        seen.setdefault(self.noise_scale, []).append(eps)
        return torch.zeros_like(eps)

    monkeypatch.setattr(Correction, "sample", sample)
    for scale in (1.0, 0.75):
        asked = make_settings(method.settings, {"steps": 60, "batch_size": 8, "noise_scale": scale, **words})
        objective = method.build(teacher, asked, None, method.new_student(teacher, asked))
        learners = {key: learner.module for key, learner in objective.learners().items()}
        draw = Draw(0, 0, "x", 0, 8, 8)
        batch = Batch(draw.normal("noise", teacher.shape), data=draw.normal("data", teacher.shape))
        for turn_of in ("fake", "critic", "student") if words else ("fake", "student"):
            for term in objective.losses(learners, Turn(turn_of, 60, 0.5, draw), batch):
                term()
    assert len(seen[1.0]) == len(seen[0.75]) >= (3 if words else 2)
    for usual, cooler in zip(seen[1.0], seen[0.75], strict=True):
        torch.testing.assert_close(cooler, 0.75 * usual)


@pytest.mark.parametrize("name", METHODS)
def test_with_the_sign_turned_it_runs_away(name):
    mean, deviation = pulled(name, (1.3, 0.7), sign=-1.0)
    assert abs(mean - 1) > 0.5 or abs(deviation - 0.5) > 0.5


def test_the_fake_learns_the_students_samples():
    """Denoising of N(−1, 0.2²) with the closed form as the answer; the analytic teacher's fake starts at zero."""
    torch.manual_seed(0)
    teacher = Gaussian(1.0, 0.5, (8,))
    student = Affine(teacher, -1.0, 0.2)
    objective = correction(DistributionMatching, teacher, Student.from_teacher(teacher, 0.0, 0.9))
    fake = objective.fake.module
    known = {"student": student, "fake": fake}
    optimiser = torch.optim.Adam(fake.parameters(), 2e-3)
    for step in range(1000):
        when = turn("fake", step, 128)
        (term,) = objective.losses(known, when, objective.source.batch(when.draw))
        optimiser.zero_grad()
        term().total.backward()
        optimiser.step()
    assert student.mean.grad is None
    eps, r = torch.randn(512, 8), torch.linspace(0.2, 0.9, 512)
    alpha, sigma = (v[:, None] for v in teacher.schedule.alpha_sigma(r))
    x_r = alpha * student(eps, r, None) + sigma * torch.randn(512, 8)
    exact = Exact(student, teacher.schedule)(x_r, r, None)
    assert (fake(x_r, r, Batch(eps).condition) - exact).square().mean() < 0.01
    assert (teacher.x0(x_r, r) - exact).square().mean() > 0.5


def test_the_prediction_of_c3_is_the_residual_of_boot():
    """y_s − (f + y'/lambda') = (y_s − target)/kappa at the same times, sample by sample."""
    teacher, student = small()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    boot = Boot(teacher, Learner(student, 1e-3), delta=0.05, weight=SignalWeight(), boundary_weight=0)
    when, known = turn(), {"student": student}
    batch = boot.source.batch(when.draw)
    (term,) = boot.losses(known, when, batch)
    t, residual = term().by_time["residual"]
    objective = correction(FreeFlow, teacher, student)
    t_3, residual_3 = objective.prediction(known, when, batch, torch.ones(32, dtype=torch.bool)).by_time["residual"]
    assert torch.allclose(t, t_3) and residual.min() > 0
    assert torch.allclose(residual, residual_3, rtol=1e-3)


def test_the_gradient_of_c3s_prediction_passes_through_y_s_only():
    teacher, student = small()
    objective = correction(FreeFlow, teacher, student)
    when = turn()
    seen = []

    class Spy(nn.Module):
        def forward(self, eps, t, condition):
            out = student(eps, t, condition)
            seen.append((out.requires_grad, float(t.mean())))
            return out

    rows = torch.ones(32, dtype=torch.bool)
    objective.prediction({"student": Spy()}, when, objective.source.batch(when.draw), rows)
    assert [learns for learns, _ in seen] == [False, True]
    assert seen[0][1] - seen[1][1] == pytest.approx(0.05, abs=1e-4), "y_t first, and y_s learns"


class Table(nn.Module):
    """A student that knows a value for every noise and some times, and nothing that would smooth them."""

    def __init__(self, known: torch.Tensor, ends: tuple[float, float], rows: int = 16) -> None:
        super().__init__()
        self.low, self.high = ends
        self.values = nn.Parameter(known.repeat(rows, 1, 1).clone())

    def forward(self, eps, t, condition):
        place = (t - self.low) / (self.high - self.low) * (len(self.values) - 1)
        below = place.floor().long().clamp(max=len(self.values) - 2)
        share, column = (place - below)[:, None], torch.arange(len(t))
        return (1 - share) * self.values[below, column] + share * self.values[below + 1, column]


def test_c3s_prediction_alone_finds_the_path_from_its_boundary():
    """From f(x_T, t_max) at every time to the exact path."""
    teacher = Gaussian(0.5, 0.5, (4,))
    student = Student.from_teacher(teacher, 0.02, 0.9)
    objective = correction(FreeFlow, teacher, student)
    eps = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    edge = teacher.x0(objective.schedule.start_scale(0.9) * eps, torch.full((32,), 0.9))
    table = Table(edge, (0.02, 0.9))
    optimiser = torch.optim.Adam(table.parameters(), 0.01)
    errors, every = [], torch.ones(32, dtype=torch.bool)
    exact = solve(teacher, eps, even_times(200, 0.02, 0.9), Heun())[-1]
    rates = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.01, 1500)
    for step in range(1500):
        errors.append(float((table.values[0] - exact).detach().square().mean()))
        optimiser.zero_grad()
        objective.prediction({"student": table}, turn(step=step), Batch(eps), every).total.backward()
        optimiser.step()
        rates.step()
    assert errors[-1] < 0.05 * errors[0]


def test_an_error_of_c3s_student_shrinks_by_itself():
    """Where a path is exact but for some times, a small plain step brings them nearer to it."""
    teacher = Gaussian(0.5, 0.5, (4,))
    objective = correction(FreeFlow, teacher, Student.from_teacher(teacher, 0.02, 0.9))
    eps = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    path = torch.stack(solve(teacher, eps, even_times(88, 0.02, 0.9), Heun())).flip(0)
    table = Table(torch.zeros(32, 4), (0.02, 0.9), rows=len(path))
    with torch.no_grad():
        table.values.copy_(path)
        table.values[40:48] += 0.1
    objective.prediction({"student": table}, turn(), Batch(eps), torch.ones(32, dtype=torch.bool)).total.backward()
    assert (table.values.grad[40:48] * 0.1).sum() > 0


def test_a_correction_is_balanced_against_the_prediction():
    """Twice the velocity's difference is the same pull; a doubles it."""
    teacher, student = small()
    fake = Fake.from_teacher(teacher)
    with torch.no_grad():
        fake.network.network.b.bias.add_(0.1)
    when = turn()

    def pull(balance: float, bias: float) -> torch.Tensor:
        moved = copy.deepcopy(fake)
        with torch.no_grad():
            moved.network.network.b.bias.add_(bias)
        objective = correction(FreeFlow, teacher, copy.deepcopy(student), moved, balance=balance, floor=0.0)
        for step in range(2):  # nothing corrects in the first
            predicted, corrected, *_ = objective.losses(networks(objective), when, objective.source.batch(when.draw))
            predicted()
            loss = corrected().total
            assert (loss != 0) == (step == 1)
            objective.after_step(networks(objective), when.step)
        loss.backward()
        return torch.cat([p.grad.flatten() for p in objective.boot.student.module.parameters() if p.grad is not None])

    one, far, double = pull(1, 0), pull(1, 0.1), pull(2, 0)
    assert torch.allclose(double, 2 * one, rtol=1e-3, atol=1e-7)
    assert torch.allclose(far, one, rtol=1e-3, atol=1e-7)


def test_a_low_rank_fake_shares_the_teachers_weights():
    teacher, _ = small()
    whole, shared = Fake.from_teacher(teacher), Fake.from_teacher(teacher, rank=1)
    theirs = {p.data_ptr() for p in teacher.parameters()}
    assert not theirs & {p.data_ptr() for p in shared.parameters()}
    assert sum(p.numel() for p in shared.parameters()) < sum(p.numel() for p in whole.network.network.parameters())
    x, r = torch.randn(6, 4), torch.full((6,), 0.5)
    before = teacher.x0(x, r)
    with torch.no_grad():
        for parameter in shared.parameters():
            parameter.add_(0.3)
    assert not torch.allclose(shared(x, r, Batch(x).condition), before, atol=1e-2)
    assert torch.equal(teacher.x0(x, r), before)


@pytest.mark.parametrize(
    "save", [save_class_unet, save_dit, save_sd, save_sdxl, save_if, save_if_sr, save_sd3, save_flux]
)
def test_a_low_rank_fake_and_its_teacher_do_not_mix(save, tmp_path):
    """In every family: the fake answers otherwise, and the teacher as before."""
    teacher = load_teacher(str(save(tmp_path)))
    fake = Fake.from_teacher(teacher, rank=2)
    generator = torch.Generator().manual_seed(0)
    x, r = torch.randn(3, *teacher.shape, generator=generator), torch.tensor([0.3, 0.5, 0.8])
    condition = Condition.cat([adapter_of(teacher).blank(1)] * 3).add(guidance=torch.full((3,), 2.0))
    with torch.no_grad():
        before = teacher.denoiser.x0(x, r, condition)
        assert torch.equal(fake(x, r, condition), before)
        for parameter in fake.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        assert (fake(x, r, condition) - before).abs().mean() > 1e-3
        assert torch.equal(teacher.denoiser.x0(x, r, condition), before)


def test_guidance_within_an_interval():
    class Told(nn.Module):
        def forward(self, x, timestep, classes):
            return x * classes[:, None]

    inner = CallableTeacher(Told(), Cosine(), "sample", (2,))
    null = Classes([1]).listed(0, 0, 1)
    whole = Limited(Guided(inner, null, 3.0), Clip())
    within = guided_within(whole, (0.3, 0.6))
    x, t = 0.1 * torch.ones(3, 2), torch.tensor([0.2, 0.5, 0.7])
    condition = Classes([2]).listed(0, 0, 3)
    assert torch.allclose(within.x0(x, t, condition)[:, 0], torch.tensor([0.2, 0.4, 0.2]))
    assert isinstance(within, Limited) and torch.allclose(whole.x0(x, t, condition)[:, 0], torch.tensor([0.4] * 3))


# --- runs ----------------------------------------------------------------------------------------------------

FAST = {"batch_size": 8, "sample_every": 0, "log_every": 1, "checkpoint_every": 2, "ema_decay": 0.9, "t_max": 0.9}


def settings(method: str = "boot+dm", **fields):
    staged = {"boot": {"steps": 4, "learning_rate": 1e-3}} if "+" in method else {}
    own = {"fake_warmup": 1} if method != "boot" else {}
    return find_method(method).settings(**{**FAST, "steps": 4, "learning_rate": 1e-3, **own, **staged, **fields})


@pytest.fixture(scope="module")
def corrected(tiny, tmp_path_factory):
    """A finished run of two stages."""
    run = tmp_path_factory.mktemp("runs") / "corrected"
    distill(str(tiny), run, settings(), "boot+dm")
    return run


def test_both_students_are_there_and_differ(corrected, tiny):
    first, second = load_file(corrected / "boot" / PATH), load_file(corrected / PATH)
    assert any(not torch.equal(first[name], second[name]) for name in first)
    for part in ("student/model_index.json", "boot/student/model_index.json", "log.jsonl", "boot/log.jsonl"):
        assert (corrected / part).is_file()
    logged = [json.loads(line) for line in (corrected / "log.jsonl").read_text().splitlines()]
    assert {"correction", "fake", "bootstrap"} <= set(logged[-1])


@pytest.mark.parametrize("method", METHODS)
def test_every_correction_runs_and_corrects(method, tiny, tmp_path, corrected, monkeypatch):
    """With the comparison left out the student is another one."""
    words = settings(method, start=str(corrected / "boot"), t_max=None)
    distill(str(tiny), tmp_path / "with", words, method)
    kind = METHODS[method]
    nothing = lambda self, networks, x, x_r, r, condition: (0 * x.sum(), torch.zeros_like(r))  # noqa: E731
    monkeypatch.setattr(kind, "compare", nothing)
    distill(str(tiny), tmp_path / "without", words, method)
    with_it, without = load_file(tmp_path / "with" / PATH), load_file(tmp_path / "without" / PATH)
    assert any(not torch.equal(with_it[name], without[name]) for name in without)


def test_freeflow_splits_its_batch_by_number():
    """A quarter of the whole batch, whatever the slices."""
    teacher, student = small()
    objective = correction(FreeFlow, teacher, student)
    whole = objective.correcting(Turn("student", 0, 0.0, Draw(0, 0, "student", 0, 16, 16)))
    parts = [objective.correcting(Turn("student", 0, 0.0, Draw(0, 0, "student", i, i + 8, 16))) for i in (0, 8)]
    assert whole.sum() == 4 and torch.equal(torch.cat(parts), whole)


def test_freeflows_gradient_does_not_depend_on_how_its_batch_is_split():
    """Three slices of a batch, two of which correct nothing, give together what the whole batch gives."""
    teacher, student = small()
    fake = Fake.from_teacher(teacher)
    with torch.no_grad():
        fake.network.network.b.bias.add_(0.1)

    def gradient(parts: int) -> tuple[torch.Tensor, torch.Tensor]:
        objective = correction(FreeFlow, teacher, copy.deepcopy(student), fake, share=0.1)
        objective.scale, size = torch.tensor(0.7), 12 // parts
        corrects = 0
        for start in range(0, 12, size):
            when = Turn("student", 0, 0.0, Draw(0, 0, "student", start, start + size, 12))
            corrects += int(objective.correcting(when).any())
            for term in objective.losses(networks(objective), when, objective.source.batch(when.draw)):
                (term().total / parts).backward()
        assert corrects == 1
        objective.after_step(networks(objective), 0)
        learned = objective.boot.student.module.parameters()
        return torch.cat([p.grad.flatten() for p in learned if p.grad is not None]), objective.scale

    (whole, scale), (split, split_scale) = gradient(1), gradient(3)
    assert whole.abs().max() > 1e-4 and torch.allclose(whole, split, rtol=1e-3, atol=1e-7)
    assert scale != 0.7 and torch.allclose(scale, split_scale)


@pytest.mark.slow
@pytest.mark.multi
def test_two_processes_run_both_stages(cli, tiny, tmp_path):
    """The group of processes outlives the first stage; the student is one process's, to rounding."""
    words = ["distill", tiny, "--method", "boot+dm", "--batch-size", "8", "--steps", "2", "--set", "boot.steps=2"]
    words += ["--set", "sample_every=0", "--set", "t_max=0.9", "--set", "fake_warmup=1"]
    alone = cli(*words, "--output", tmp_path / "1")
    assert alone.code == 0, alone.err
    call = command(*words, "--output", tmp_path / "2", processes=2)
    done = subprocess.run(call, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    one, two = load_file(tmp_path / "1" / PATH), load_file(tmp_path / "2" / PATH)
    close(two, one, load_file(tiny / "unet" / "diffusion_pytorch_model.safetensors"), share=0.05)


def test_freeflows_scale_is_found_again(tiny, tmp_path, monkeypatch):
    """A run that was stopped goes on to the same bits."""
    distill(str(tiny), tmp_path / "whole", settings("freeflow"), "freeflow")
    whole = Loop._stop_if_asked

    def stop(loop):
        loop.stop_signal = 2 if loop.step == 3 else None
        whole(loop)

    monkeypatch.setattr(Loop, "_stop_if_asked", stop)
    with pytest.raises(Interrupted, match="stopped at step 3 of 4"):
        distill(str(tiny), tmp_path / "run", settings("freeflow"), "freeflow")
    monkeypatch.setattr(Loop, "_stop_if_asked", whole)
    distill(str(tiny), tmp_path / "run", settings("freeflow"), "freeflow")
    here, there = load_file(tmp_path / "run" / PATH), load_file(tmp_path / "whole" / PATH)
    assert all(torch.equal(here[name], there[name]) for name in there)


@pytest.mark.slow
@pytest.mark.multi
def test_processes_whose_slices_hold_other_terms_log_the_same(cli, tiny, tmp_path):
    """Of two slices one corrects nothing."""
    words = ["distill", tiny, "--method", "freeflow", "--batch-size", "8", "--steps", "4", "--set", "t_max=0.9"]
    words += [
        "--set",
        "fake_warmup=1",
        "--set",
        "correction_share=0.15",
        "--set",
        "log_every=1",
        "--set",
        "sample_every=0",
    ]
    alone = cli(*words, "--output", tmp_path / "1")
    assert alone.code == 0, alone.err
    call = command(*words, "--output", tmp_path / "2", processes=2)
    done = subprocess.run(call, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("1", "2")]
    logs = [[json.loads(line) for line in run] for run in lines]
    for one, two in zip(*logs, strict=True):
        assert set(one) == set(two)
        assert one["loss"] == pytest.approx(two["loss"], rel=0.02)
    assert "correction" in logs[0][-1]


@pytest.mark.parametrize("stage, at", [("boot", 3), ("dm", 3)])
def test_a_run_of_two_stages_resumes_to_the_same_bits(stage, at, tiny, tmp_path, corrected, monkeypatch):
    """Stopped in either stage, the same call goes on there."""
    whole = Loop._stop_if_asked

    def stop(loop):
        if loop.step == at and (len(loop.learners) == 1) == (stage == "boot"):
            loop.stop_signal = 2
        whole(loop)

    monkeypatch.setattr(Loop, "_stop_if_asked", stop)
    with pytest.raises(Interrupted, match="stopped at step 3 of 4"):
        distill(str(tiny), tmp_path / "run", settings(), "boot+dm")
    monkeypatch.setattr(Loop, "_stop_if_asked", whole)
    distill(str(tiny), tmp_path / "run", settings(), "boot+dm")
    for part in ("boot/" + PATH, PATH):
        here, there = load_file(tmp_path / "run" / part), load_file(corrected / part)
        assert all(torch.equal(here[name], there[name]) for name in there)


def test_a_correction_of_a_saved_student_is_the_second_stage(tiny, tmp_path, corrected):
    """From the run's first student, alone: the same bits; and the path's times are taken over."""
    alone = settings("dm", start=str(corrected / "boot"), t_max=None)
    student = distill(str(tiny), tmp_path / "alone", alone, "dm")
    assert student.t_max == pytest.approx(0.9)
    here, there = load_file(tmp_path / "alone" / PATH), load_file(corrected / PATH)
    assert all(torch.equal(here[name], there[name]) for name in there)


def test_a_correction_takes_over_how_targets_are_limited(tiny, tmp_path):
    distill(str(tiny), tmp_path / "a", settings("boot", target_limit="dynamic", dynamic_ratio=0.9), "boot")
    asked = settings("dm", start=str(tmp_path / "a"), t_max=None)
    assert distill(str(tiny), tmp_path / "b", asked, "dm").target_limit.ratio == 0.9
    other = settings("dm", start=str(tmp_path / "a"), t_max=None, target_limit="none")
    assert distill(str(tiny), tmp_path / "c", other, "dm").target_limit == NoLimit()
    asked = settings("dm", start=str(tmp_path / "a"), t_max=None, target_limit="teacher")
    again = distill(str(tiny), tmp_path / "d", asked, "dm")
    assert again.target_limit == again.limit


def test_memory_counts_every_network_that_gradients_pass_through(tmp_path):
    teacher = load_teacher(str(save_sd(tmp_path)))

    def need(method: str, **words) -> Need:
        found = memory_need(teacher, make_settings(find_method(method).settings, words))
        assert found is not None
        return found

    boot, dm = need("boot"), need("dm")
    assert dm.sample == boot.sample and dm.weights > boot.weights == need("dm", fake_rank=2).weights
    assert need("sid").sample == 3 * boot.sample and need("sid", guidance_scale=2.0).sample == 4 * boot.sample
    assert need("sid").checkpointed == 2 * boot.checkpointed + boot.sample
    assert need("dm", fake_rank=2).checkpointed == boot.sample > dm.checkpointed == boot.checkpointed


@pytest.mark.slow
def test_a_student_that_does_not_learn_yet_has_not_converged(tiny, tmp_path):
    """While the fake alone learns all looks are equal."""
    words = settings("dm", steps=24, fake_warmup=20, watch_every=1, stop_when="converged", learning_rate=0.01)
    distill(str(tiny), tmp_path / "run", words, "dm")
    assert json.loads((tmp_path / "run" / "done.json").read_text())["steps"] == 24


def test_the_rate_warms_up_when_the_student_starts(tiny, tmp_path):
    words = settings("dm", steps=6, fake_warmup=2, warmup_steps=3, lr_schedule="constant", learning_rate=1.0)
    distill(str(tiny), tmp_path / "run", words, "dm")
    rates = [json.loads(line)["rate"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert rates[2:] == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_the_turns_of_the_fake_see_different_samples(tiny, tmp_path, monkeypatch):
    seen = []
    known = DistributionMatching.denoising

    def spy(self, networks, when, batch):
        seen.append(batch.noise)
        return known(self, networks, when, batch)

    monkeypatch.setattr(DistributionMatching, "denoising", spy)
    distill(str(tiny), tmp_path / "run", settings("dm", steps=1, fake_warmup=0), "dm")
    assert len(seen) == 3 and not torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2])


def test_a_start_that_does_not_fit_is_refused_in_one_line(tiny, tmp_path, corrected, cli):
    def told(*words):
        return cli("distill", tiny, "--output", tmp_path / "x", "--method", "dm", *words)

    for words, expected in (
        (("--set", "start=nowhere"), "holds neither a run"),
        (("--set", f"start={corrected / 'student'}"), "is an exported student"),
        (("--set", f"start={corrected}", "--set", "t_max=0.5"), "learned t_max = 0.9"),
    ):
        result = told(*words)
        assert result.code == 2 and expected in result.err and len(result.err.strip().splitlines()) == 1
    for save, expected in ((save_class_unet, "does not fit the teacher"), (save_sd, "is another kind of teacher")):
        other = save(tmp_path / save.__name__)
        result = cli("distill", other, "--output", tmp_path / "x", "--method", "dm", "--set", f"start={corrected}")
        assert result.code == 2 and expected in result.err and len(result.err.strip().splitlines()) == 1
    classes = tmp_path / "classes"
    distill(str(save_class_unet(tmp_path / "four")), classes, settings("boot", steps=1, null_class=3), "boot")
    result = told("--start", classes)
    assert result.code == 2 and "is another kind of teacher" in result.err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--method", "boot+dmm"], "Did you mean 'dm'"),
        (["--set", "fake_rank=4"], "method boot has no setting 'fake_rank'; choose --method dm or sid"),
        (["--method", "boot+dm", "--set", "boot.fake_rank=4"], "boot: there is no setting 'fake_rank'"),
        (["--method", "boot+dm", "--set", "boot.stepz=3"], "boot: there is no setting 'stepz'"),
        (["--method", "boot+dm", "--set", "boot.t_max=0.5"], "both stages have the same one"),
        (["--method", "boot+dm", "--set", "noise_levels=[0.9,0.1]"], "LOW < HIGH"),
        (["--method", "dm", "--set", "guidance_interval=[0.1,0.9]"], "give guidance_scale"),
        (["--method", "dm", "--set", "noise_levels=[0.99,1.0]"], "outside the times of"),
        (["--method", "dm", "--set", "fake_rank=2", "--set", "compile=true"], "exclude each other"),
        (["--method", "sid", "--dtype", "float16"], "float16 teacher vanish"),
        (["--method", "boot+dm", "--set", "boot.null_class=3"], "both stages have the same one"),
        (["--method", "freeflow", "--batch-size", "2"], "needs 4 or more"),
        (["--method", "freeflow", "--set", "solver=heun"], "leave solver out"),
        (["--method", "dm", "--steps", "50"], "take more steps, or a shorter fake_warmup"),
        (["--method", "boot+dm", "--set", "boot=3"], "setting boot: input should be a valid dictionary"),
    ],
)
def test_bad_settings_are_one_line_and_leave_nothing(tiny, tmp_path, cli, words, expected):
    result = cli("distill", tiny, "--output", tmp_path / "x", *words)
    assert result.code == 2 and expected in result.err, result.err
    assert len(result.err.strip().splitlines()) == 1 and not (tmp_path / "x").exists()


@pytest.mark.parametrize("method", ["boot+dm", "boot+sid", "boot+freeflow"])
@pytest.mark.parametrize("weights", [{"guidance_scale": 2.0}, {"guidance_range": [1, 3]}], ids=["fixed", "range"])
def test_classes_with_guidance(method, weights, tmp_path):
    teacher = save_class_unet(tmp_path / "teacher")
    words = settings(method, null_class=3, guidance_interval=[0.2, 0.8], **weights)
    student = distill(str(teacher), tmp_path / "run", words, method)
    assert student.guidance == (2.0 if "guidance_scale" in weights else (1.0, 3.0))
    again = load_student(tmp_path / "run")
    assert again.guidance == student.guidance


def test_text_latents_with_a_low_rank_fake(tmp_path):
    teacher = save_sd(tmp_path / "teacher")
    (tmp_path / "prompts.txt").write_text("one\ntwo\nthree\n")
    words = settings(fake_rank=2, guidance_scale=2.0, prompts=str(tmp_path / "prompts.txt"))
    distill(str(teacher), tmp_path / "run", words, "boot+dm")
    state = load_file(next((tmp_path / "run" / "checkpoints").iterdir()) / "fake.weights.safetensors")
    assert state and all("updates" in name for name in state)
    assert not (tmp_path / "run" / "boot" / "prompts").exists(), "prompts are encoded once"


def test_a_cascade(tmp_path):
    (tmp_path / "prompts.txt").write_text("one\ntwo\n")
    base, large = save_if(tmp_path / "base"), save_if_sr(tmp_path / "large")
    words = {"prompts": str(tmp_path / "prompts.txt"), "steps": 2}
    distill(str(base), tmp_path / "small-run", settings(**words), "boot+dm")
    distill(
        str(large),
        tmp_path / "large-run",
        settings(base=str(tmp_path / "small-run"), noise_level=100, **words),
        "boot+dm",
    )
    assert (tmp_path / "large-run" / "student" / "model_index.json").is_file()
    again = {**words, "base": str(tmp_path / "small-run"), "start": str(tmp_path / "large-run"), "t_max": None}
    with pytest.raises(BootdiffError, match="learned noise_level = 100, and 50 is asked"):
        distill(str(large), tmp_path / "x", settings("dm", noise_level=50, **again), "dm")
    distill(str(large), tmp_path / "again", settings("dm", **again), "dm")
    assert load_student(tmp_path / "again").conditions["noise_level"] == 100


@pytest.mark.parametrize(
    "save, fields, options",
    [
        (save_dit, {"null_class": 4, "guidance_range": [1, 4]}, {}),
        (save_sdxl, {"guidance_scale": 3.0}, {}),
        (save_sd3, {"guidance_range": [1, 4]}, {}),
        (save_flux, {"guidance_range": [1, 4]}, {"size": 16}),
    ],
)
def test_every_other_family(save, fields, options, tmp_path):
    """BOOT, its correction, and the stock pipeline's folder."""
    (tmp_path / "prompts.txt").write_text("one\ntwo\n")
    teacher = load_teacher(str(save(tmp_path / "teacher")), **options)
    words = {} if save is save_dit else {"prompts": str(tmp_path / "prompts.txt")}
    asked = settings(**{"batch_size": 2, "steps": 2, "boot": {"steps": 2}, **words, **fields})
    before = Student.from_teacher(teacher, 0.0, 0.9).network.state_dict()
    student = distill(teacher, tmp_path / "run", asked, "boot+dm")
    first = load_student(tmp_path / "run" / "boot", teacher).network.state_dict()
    after = student.network.state_dict()
    for earlier, later in ((before, first), (first, after)):
        assert any(not torch.equal(earlier[name], later[name]) for name in earlier if name in later)
    assert (tmp_path / "run" / "student" / "model_index.json").is_file()


def test_conditions_given_from_python(tmp_path):
    class Told(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, x, timestep, classes):
            return self.b(torch.tanh(self.a(torch.cat([x, classes[:, None].float()], 1))))

    inner = CallableTeacher(Told(), Cosine(), "sample", (2,))
    teacher, conditions = Guided(inner, Classes([2]).listed(0, 0, 1), 2.0), Classes([0, 1])
    distill(teacher, tmp_path / "a", settings("dm", guidance_interval=[0.1, 0.8]), "dm", conditions=conditions)
    again = settings("dm", t_max=None, start=str(tmp_path / "a"))
    assert distill(teacher, tmp_path / "b", again, "dm", conditions=conditions).t_max == pytest.approx(0.9)


def test_a_plan_of_two_stages_says_so(tiny, tmp_path, cli):
    result = cli("distill", tiny, "--output", tmp_path / "x", "--method", "boot+dm", "--dry-run")
    assert result.code == 0 and "boot.steps" in result.out and "fake_updates: 3" in result.out
    assert not (tmp_path / "x").exists()
    assert "boot+freeflow" in cli("distill", "--help", "--method", "freeflow").out


def test_the_report_and_the_evaluation_show_both_stages(corrected, tiny, tmp_path, cli):
    run = tmp_path / "run"
    shutil.copytree(corrected, run)
    measured = cli("evaluate", run, "--num", "40", "--no-heun", "--output", tmp_path / "e.json")
    assert measured.code == 0, measured.err
    names = [row["name"] for row in json.loads((tmp_path / "e.json").read_text())["rows"]]
    assert names[-2:] == ["first stage", "student"]
    assert cli("report", run).code == 0
    page = (run / "report.html").read_text()
    assert "Student of the first stage (boot), one call" in page and "First stage: losses" in page


# --- a few calls more -------------------------------------------------------------------------------------------------


class Wrong:
    """A student that is off by a constant."""

    def __init__(self, teacher: Gaussian, error: float) -> None:
        self.teacher, self.error, self.shape, self.adapter = teacher, error, teacher.shape, None

    def __call__(self, eps, condition=NO_CONDITION):
        high = self.teacher.t_range[1]
        return self.teacher.path(eps, torch.zeros(len(eps)).double() + 1e-3, high).float() + self.error

    def told_weight(self, weight):
        return None


def test_refining_is_the_teachers_path_from_the_noised_image():
    """On a Gaussian the path from x_r is known: its image is m + c (x_r − alpha m) / sqrt(alpha² c² + sigma²)."""
    teacher = Gaussian(1.0, 0.5, (8,))
    level = level_of(teacher.schedule)
    alpha, sigma = teacher.schedule.alpha_sigma(torch.tensor([level]))
    assert (sigma / alpha).item() == pytest.approx(1 / 3, abs=2e-3)
    eps = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    for error in (0.0, 0.2):
        image = Wrong(teacher, error)(eps)
        spread = (alpha**2 * 0.25 + sigma**2).sqrt()
        expected = 1 + 0.5 * (alpha * image + sigma * eps - alpha) / spread
        made = Refined(Wrong(teacher, error), teacher, 200, level)(eps)
        assert (made - expected).abs().max() < 0.01
    # What is left of an error: alpha c / sqrt(alpha² c² + sigma²), of which the noise hides the rest.
    left = (made - Refined(Wrong(teacher, 0.0), teacher, 200, level)(eps)).mean().item()
    assert left == pytest.approx(0.2 / (1 + (2 / 3) ** 2) ** 0.5, rel=0.02)


def test_inpainting_keeps_what_is_known_and_fills_the_rest():
    teacher = Gaussian(0.5, 0.1, (1, 4, 4))
    kept = Kept(torch.full((1, 1, 4, 4), -1.0), Mask(torch.tensor([0.0, 0, 1, 1]).expand(1, 1, 4, 4)))
    made = Refined(Wrong(teacher, 0.0), teacher, 5, 0.7, kept)(torch.randn(6, 1, 4, 4))
    assert (made[..., :2] == -1).all() and (made[..., 2:] - 0.5).abs().mean() < 0.2


def test_refining_on_the_command_line(corrected, tiny, tmp_path, cli):
    def told(*words):
        return cli("sample", corrected, "--num", "4", "--output", tmp_path / "x.png", *words)

    result = told("--refine", "2")
    assert result.code == 0 and "3 calls an image" in result.out, result.err
    cli("sample", corrected, "--num", "1", "--output", tmp_path / "one")
    picture = tmp_path / "one" / "00000.png"
    assert "2 calls an image" in told("--refine", "2", "--image", picture).out
    assert "3 calls an image" in told("--refine", "2", "--image", picture, "--mask", picture).out
    shutil.copytree(tiny, tmp_path / "moved")
    assert told("--refine", "2", "--teacher", tmp_path / "moved").code == 0
    for words, expected in (
        (["--refine-from", "0.5"], "give --refine STEPS"),
        (["--teacher", tmp_path / "moved"], "give --refine STEPS"),
        (["--refine", "2", "--teacher", tmp_path / "nowhere"], "nowhere"),
        (["--refine", "2", "--mask", picture], "give --image FILE"),
        (["--refine", "2", "--refine-from", "1.5"], "expected a time above"),
        (["--refine", "2", "--edit", "3"], "conditioned on nothing"),
        (["--refine", "2", "--image", tmp_path / "no.png"], "no picture at"),
        (["--refine", "2", "--times", "0.5"], "give one of them"),
    ):
        result = told(*words)
        assert result.code == 2 and expected in result.err and len(result.err.strip().splitlines()) == 1


def test_an_edit_is_what_the_teacher_is_asked(tmp_path, cli):
    teacher = save_class_unet(tmp_path / "teacher")
    distill(str(teacher), tmp_path / "run", settings("boot", steps=1, guidance_range=[1, 3], null_class=3), "boot")
    words = ["sample", tmp_path / "run", "--class", "0", "--num", "2", "--guidance-scale", "2"]
    result = cli(*words, "--refine", "2", "--edit", "1", "--output", tmp_path / "a.png")
    assert result.code == 0, result.err
    assert cli(*words, "--refine", "2", "--output", tmp_path / "b.png").code == 0
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("name, channels", [("digits-text", 1), ("digits", 1), ("tiny sd", 3)])
def test_a_picture_is_read_in_the_channels_of_the_images(name, channels, tmp_path):
    from PIL import Image

    adapter = load_teacher(str(save_sd(tmp_path / "t")) if name == "tiny sd" else name).denoiser.adapter
    Image.new("RGB", (5, 7), (255, 0, 0)).save(tmp_path / "red.png")
    kept = open_kept(tmp_path / "red.png", tmp_path / "red.png", adapter.shape, adapter)
    assert kept.sample.shape == (1, *adapter.shape) and kept.operator.hole.shape == (1, 1, *adapter.shape[1:])
    assert adapter.decode(kept.sample).shape[1] == channels


def test_latents_go_there_and_back(tmp_path):
    adapter = load_teacher(str(save_sd(tmp_path / "teacher"))).denoiser.adapter
    images = torch.rand(2, 3, *(side * adapter.factor for side in adapter.shape[1:])) * 2 - 1
    assert adapter.latents(images).shape == (2, *adapter.shape)
    assert torch.isfinite(adapter.decode(adapter.latents(images))).all()


def test_quality_against_calls_in_a_comparison(corrected, tmp_path, cli):
    words = ["--num", "20", "--samplers", "ddim:1", "--refine", "1,2", "--output", tmp_path / "c"]
    result = cli("compare", corrected, *words)
    assert result.code == 0, result.err
    rows = json.loads((tmp_path / "c" / "compare.json").read_text())["rows"]
    assert [row["calls"] for row in rows if row["kind"] == "student"] == [1, 2, 3]
    assert "--refine expects whole numbers" in cli("compare", corrected, *words[:-2], "--refine", "x", *words[-2:]).err


@pytest.mark.parametrize("name", ["dm", "sid"])
def test_a_critic_learns_to_tell_and_the_student_to_be_taken_for_the_teacher(name):
    """Gradients reach the turn's own network only; the critic's real images are the pairs'."""
    teacher = load_teacher("digits")
    method = find_method(name)
    torch.manual_seed(0)  # of the critic's first weights, which would else depend on the tests before
    asked = make_settings(method.settings, {"steps": 60, "batch_size": 8, "critic_weight": 0.1})
    assert asked.source == "pairs" and asked.stored == 480
    student = method.new_student(teacher, asked)
    objective = method.build(teacher, asked, None, student)
    assert objective.turns(60) == ["fake", "fake", "fake", "critic", "student"] and "critic" in objective.turns(0)
    learners = {key: learner.module for key, learner in objective.learners().items()}
    draw = Draw(0, 0, "x", 0, 8, 8)
    batch = Batch(draw.normal("noise", teacher.shape), data=draw.normal("data", teacher.shape) / 4)
    for turn in ("critic", "student"):
        for key, one in learners.items():  # as the loop does in every turn
            one.requires_grad_(key == turn)
        for term in objective.losses(learners, Turn(turn, 60, 0.5, draw), batch):
            term().total.backward()
        gradients = {key: [p.grad for p in one.parameters() if p.grad is not None] for key, one in learners.items()}
        assert [key for key, found in gradients.items() if any(bool(g.any()) for g in found)] == [turn]
        learners[turn].zero_grad(set_to_none=True)
    learners["critic"].requires_grad_(True)
    assert all(p.grad is None for p in teacher.parameters())
    optimizer = torch.optim.Adam(learners["critic"].parameters(), 1e-3)
    for _ in range(100):
        loss = objective.telling(learners, Turn("critic", 60, 0.5, draw), batch)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    assert float(loss.scalars["critic is right"]) > 0.9


@pytest.mark.parametrize("name", ["dm", "sid"])
def test_the_critic_s_term_moves_the_student_to_where_the_critic_takes_it_for_the_teacher(name, monkeypatch):
    """Without the correction and BOOT's loss, the gradient is that of weight · softplus(−D) alone."""
    teacher, method = load_teacher("digits"), find_method(name)
    asked = make_settings(method.settings, {"steps": 60, "batch_size": 8, "critic_weight": 0.5, "boot_weight": 0})
    objective = method.build(teacher, asked, None, method.new_student(teacher, asked))
    learners = {key: learner.module for key, learner in objective.learners().items()}
    monkeypatch.setattr(type(objective), "compare", lambda self, networks, x, *_: (0 * x.sum(), torch.zeros(len(x))))
    images = torch.randn(8, 1, 8, 8).requires_grad_()
    monkeypatch.setattr(type(objective), "sample", lambda self, networks, eps, condition: images)
    draw = Draw(0, 0, "x", 0, 8, 8)
    batch, turn = (
        Batch(draw.normal("noise", teacher.shape), data=draw.normal("data", teacher.shape)),
        Turn("student", 60, 0.5, draw),
    )
    (term,) = objective.losses(learners, turn, batch)
    term().total.backward()
    r = objective.draw_levels(turn)
    again = images.detach().clone().requires_grad_()
    x_r = noisy(again, draw.normal("renoise", teacher.shape), r, teacher.schedule)
    judged = learners["critic"](x_r, r, batch.condition)
    expected = torch.autograd.grad(0.5 * torch.nn.functional.softplus(-judged).mean(), again)[0]
    assert float(expected.abs().max()) > 0
    torch.testing.assert_close(images.grad, expected)


def test_a_run_with_a_critic_is_free_of_data_and_ends_the_same_again(tmp_path):
    method = find_method("boot+dm")
    words = {"steps": 4, "batch_size": 4, "fake_warmup": 1, "critic_weight": 0.1, "pairs": 8, "pair_steps": 2}
    asked = make_settings(method.settings, {**words, "boot": {"steps": 2}, "watch_every": 0, "checkpoint_every": 2})
    student = distill("digits", tmp_path / "run", asked, "boot+dm")
    assert student.data_free
    assert json.loads((tmp_path / "run/done.json").read_text())["data_free"] is True
    again = distill("digits", tmp_path / "again", asked, "boot+dm").state_dict()
    assert all(torch.equal(value, again[name]) for name, value in student.state_dict().items())


@pytest.mark.parametrize("words, told", [
    ({"critic_weight": 0.1, "source": "noise"}, "critic_weight needs samples of the teacher"),
    ({"critic_weight": -1.0}, "critic_weight"),
])  # fmt: skip
def test_a_critic_that_means_nothing_is_refused(words, told):
    with pytest.raises(BootdiffError, match=told):
        make_settings(find_method("dm").settings, words)


@pytest.mark.parametrize("name, words", [
    ("consistency+dm", {}),
    ("progressive+dm", {}),
    ("tract+sid", {}),
    ("direct+dm", {"direct": {"pairs": 200}}),
    ("consistency-training+dm", {"consistency-training": {"images": "digits"}}),
    ("direct+dm", {"critic_weight": 0.1, "pairs": 60, "direct": {"pairs": 200}}),
])  # fmt: skip
def test_what_a_stage_learns_from_is_its_own(name, words, tmp_path):
    """A correction that may take pairs says nothing of what the method before it learns from."""
    asked = make_settings(find_method(name).settings, {"steps": 60, "batch_size": 4, **words})
    plan = plan_distillation("digits", tmp_path / "run", asked, name)
    first = plan.before[-1] if "direct" in name else plan.before[0]
    assert first.source.kind == ("images" if "training" in name else "pairs")
    assert plan.source.kind == ("pairs" if "critic_weight" in words else "noise")
    if name == "direct+dm":
        assert first.trained.stored == 200


def test_the_first_stages_pairs_are_as_many_as_it_asks_for(tmp_path):
    asked = make_settings(find_method("direct+drift").settings, {"steps": 60, "batch_size": 4})
    plan = plan_distillation("digits", tmp_path / "run", asked, "direct+drift")
    assert (plan.before[0].trained.stored, plan.trained.stored) == (asked.first.steps * 4, 240)
