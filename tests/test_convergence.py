"""Convergence told without data: figures that are right, and a verdict for every way that a run can go."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError, Interrupted
from bootdiff.core.randomness import sample_noise
from bootdiff.data.conditions import Classes, Unconditional
from bootdiff.distillation.distill import distill
from bootdiff.methods.boot import Boot, BootSettings
from bootdiff.monitoring.convergence import judge, read_watch
from bootdiff.monitoring.noises import SEED
from bootdiff.monitoring.watch import Watch
from bootdiff.monitoring.watch_plan import EXACT, EXACT_STEPS, WatchPlan
from bootdiff.schedules import Cosine
from bootdiff.solvers import Heun, even_times, solve
from bootdiff.students import PathStudent, Student
from bootdiff.teachers import CallableTeacher, Gaussian, adapter_of, load_teacher
from bootdiff.teachers.base import Teacher, Wrapper
from bootdiff.teachers.features import TeacherFeatures
from bootdiff.training.accelerator import make_accelerator
from bootdiff.training.loop import Loop
from tiny_pipelines import save_class_unet, save_dit, save_flux, save_if_sr, save_sd, save_sd3

SHAPE = (1, 2, 2)


class Shrinking(Wrapper):
    """A teacher that answers with what all samples have in common."""

    def x0(self, x_t, t, condition=None):
        return self.inner.x0(x_t, t).mean(0, keepdim=True).expand_as(x_t)


class Swelling(Wrapper):
    """A teacher that answers with too much of everything."""

    def x0(self, x_t, t, condition=None):
        return 1.5 * self.inner.x0(x_t, t)


def teacher() -> Gaussian:
    return Gaussian(0.0, 0.5, SHAPE, Cosine())


def settings(steps: int, **fields) -> BootSettings:
    usual = {"batch_size": 64, "learning_rate": 2e-3, "ema_decay": 0.9, "t_min": 0.02, "t_max": 0.7, "delta": 0.1}
    kept = {"sample_every": 0, "log_every": 50, "checkpoint_every": 10_000}
    return BootSettings(**{"steps": steps, "watch_every": max(1, steps // 12), **usual, **kept, **fields})


def verdict(folder, asked: BootSettings, learned: Teacher | None = None) -> str:
    """Train on ``learned`` while ``teacher`` is what the student is watched beside."""
    torch.manual_seed(0)
    objective = Boot.from_settings(learned or teacher(), asked)
    looks = WatchPlan.of(asked, SHAPE)
    watch = Watch(teacher(), Unconditional(), (0.02, 0.7), folder, looks, asked.steps)
    folder.mkdir(exist_ok=True)
    Loop(objective, asked, folder, make_accelerator(asked, folder), watch=watch).run(show_progress=False)
    return watch.verdict.word


def test_a_run_that_was_cut_short_is_still_falling(tmp_path):
    assert verdict(tmp_path / "run", settings(24, learning_rate=3e-4)) == "still falling"


def test_a_run_that_has_learned_its_path_has_converged(tmp_path):
    assert verdict(tmp_path / "run", settings(600, ema_decay=0.99)) == "converged"
    last = read_watch(tmp_path / "run")[-1]
    assert last["path_error"] < 0.01 and last["diversity"] == pytest.approx(last["teacher_diversity"], rel=0.2)


def test_a_teacher_that_says_too_much_makes_the_student_drift(tmp_path):
    assert verdict(tmp_path / "run", settings(400, ema_decay=0.98), Swelling(teacher())) == "drifting"


def test_a_student_that_makes_the_same_of_every_noise_is_collapsing(tmp_path):
    assert verdict(tmp_path / "run", settings(400), Shrinking(teacher())) == "collapsing"


def test_a_rate_that_rises_too_far_is_unstable(tmp_path):
    """It learns while the rate is low, and loses all of it as the rate goes on rising."""
    rising = settings(400, learning_rate=0.5, warmup_steps=400, ema_decay=0, gradient_clip=0)
    assert verdict(tmp_path / "run", rising) == "unstable"


def test_too_few_looks_say_nothing():
    assert judge([]).word == "unknown"


def test_the_figures_are_those_of_an_exact_student(tmp_path):
    """A student that answers with the path itself has no error, and the teacher's own statistics."""
    frozen, times = teacher(), even_times(EXACT_STEPS, 0.02, 0.7)

    class Exact(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, x, own, target, condition):
            exact = solve(frozen, x, times, Heun())
            at_end = target < 500
            return torch.where(at_end.reshape(-1, 1, 1, 1), exact[-1], exact[0])

    student = PathStudent(Exact(), frozen, 0.02, 0.7)
    watch = Watch(frozen, Unconditional(), (0.02, 0.7), tmp_path, WatchPlan(EXACT, 1), 1)
    watch.look(1, {"student": student})
    look = read_watch(tmp_path)[0]
    assert look["path_error"] < 1e-12 and look["boundary_error"] < 1e-12 and abs(look["frechet_distance"]) < 1e-6
    samples = solve(frozen, sample_noise(SEED, 0, EXACT, SHAPE), times, Heun())[-1]
    assert look["mean"] == pytest.approx([float(samples.mean())], abs=1e-6)
    assert look["deviation"] == pytest.approx([float(samples.std())], abs=1e-6)
    half = EXACT // 2
    assert look["diversity"] == pytest.approx(float((samples[:half] - samples[half:]).square().mean().sqrt()), rel=1e-5)
    assert look["saturation"] == look["teacher_saturation"] and 0 < look["saturation"][0] < 0.1


def test_the_two_halves_share_their_conditions():
    """So that what differs between them is the seed alone."""
    watch = Watch(teacher(), Classes([3, 5, 7]), (0.02, 0.7), None, WatchPlan(140, 1), 1)
    labels = torch.cat([condition["classes"] for _, condition in watch.noises.batches()])
    noises = torch.cat([eps for eps, _ in watch.noises.batches()])
    assert torch.equal(labels[:70], labels[70:]) and labels.unique().tolist() == [3, 5, 7]
    assert torch.equal(noises, sample_noise(SEED, 0, 140, SHAPE))


@pytest.mark.parametrize("shown", [False, True])
def test_looks_cost_two_in_a_hundred_of_the_passes(shown):
    for steps, batch in ((1500, 64), (700, 64), (100_000, 128)):
        asked = BootSettings(steps=steps, batch_size=batch)
        plan = WatchPlan.of(asked, (1, 8, 8), shown=shown)
        looks = math.ceil(steps / plan.every)
        exact = min(plan.count, EXACT)
        passes = exact * (2 * EXACT_STEPS + 1) + (plan.count - exact) * 13 + looks * (plan.count + exact)
        passes += shown * plan.count * (1 + looks)
        assert looks >= 10 and passes < 0.025 * steps * batch * 6
    assert WatchPlan.of(BootSettings(steps=20, batch_size=8), (1, 8, 8)) is None
    large = BootSettings(steps=20, batch_size=8, watch_every=5)
    assert WatchPlan.of(large, (3, 512, 512)) == WatchPlan(8, 5)  # asked for, whatever it costs
    four = WatchPlan.of(BootSettings(steps=1500, batch_size=64), (1, 8, 8), processes=4)
    assert four.count < WatchPlan.of(BootSettings(steps=1500, batch_size=64), (1, 8, 8)).count
    assert WatchPlan.of(BootSettings(steps=10_000, watch_every=0), (1, 8, 8)) is None


def test_stop_when_converged_ends_the_run_and_repeating_it_is_done(tmp_path):
    asked = settings(4000, ema_decay=0.99, watch_every=50, stop_when="converged")
    distill(teacher(), tmp_path / "run", asked)
    done = json.loads((tmp_path / "run" / "done.json").read_text())
    assert 600 <= done["steps"] < 4000
    assert read_watch(tmp_path / "run")[-1]["path_error"] < 0.01
    distill(teacher(), tmp_path / "run", asked)
    assert json.loads((tmp_path / "run" / "done.json").read_text()) == done


@pytest.mark.slow
def test_a_run_does_not_stop_before_it_has_begun(tmp_path):
    """While the rate still rises from 0, nothing falls either."""
    asked = settings(900, warmup_steps=400, learning_rate=1e-3, watch_every=10, stop_when="converged")
    distill(teacher(), tmp_path / "run", asked)
    done = json.loads((tmp_path / "run" / "done.json").read_text())
    assert done["steps"] >= 510 and read_watch(tmp_path / "run")[-1]["path_error"] < 0.02


def test_a_student_that_still_learns_to_differ_is_still_falling():
    look = {"path_error": 0.2, "frechet_distance": 0.5, "teacher_diversity": 1.0, "teacher_variance": 1.0}
    still = {**look, "saturation": [0.0], "teacher_saturation": [0.0]}
    looks = [{**still, "step": i, "diversity": 0.02 + 0.01 * i} for i in range(8)]
    assert judge(looks).word == "still falling" and "as much as the teacher's" in judge(looks).sentence


def test_a_student_that_is_not_finite_is_unstable(tmp_path):
    asked = Watch(teacher(), Unconditional(), (0.02, 0.7), tmp_path, WatchPlan(EXACT, 1), 4)
    student = Student.from_teacher(teacher(), 0.02, 0.7)
    for step in range(1, 5):
        if step == 4:
            torch.nn.init.constant_(student.network.last.bias, float("nan"))
        asked.look(step, {"student": student})
    assert asked.verdict.word == "unstable" and "not finite at step 4" in asked.verdict.sentence


def test_stopping_needs_looks():
    with pytest.raises(BootdiffError, match="stop_when converged needs looks"):
        BootSettings(stop_when="converged", watch_every=0)


def test_an_interrupted_run_sees_what_an_undisturbed_one_sees(tmp_path, monkeypatch):
    asked = settings(60, watch_every=10, checkpoint_every=15)
    distill(teacher(), tmp_path / "whole", asked)
    original = Loop._report

    def stop(self, bar):
        if self.step == 25 and self.saved != 25:
            self.stop_signal = 2
        original(self, bar)

    monkeypatch.setattr(Loop, "_report", stop)
    with pytest.raises(Interrupted):
        distill(teacher(), tmp_path / "cut", asked)
    monkeypatch.setattr(Loop, "_report", original)
    distill(teacher(), tmp_path / "cut", asked)
    looks = [[{**look, "seconds": 0} for look in read_watch(tmp_path / name)] for name in ("whole", "cut")]
    assert looks[0] == looks[1] and [look["step"] for look in looks[0]] == [10, 20, 30, 40, 50, 60]


def test_a_teacher_without_pictures_is_watched_too(tmp_path):
    """Samples that are plain vectors have one channel."""

    class Still(nn.Module):
        def forward(self, x, timestep):
            return x

    plain = CallableTeacher(Still(), Cosine(), "sample", (3,))
    watch = Watch(plain, Unconditional(), (0.02, 0.7), tmp_path, WatchPlan(EXACT, 1), 1)
    watch.look(1, {"student": Student.from_teacher(Gaussian(0, 1, (3,)), 0.02, 0.7)})
    assert len(read_watch(tmp_path)[0]["mean"]) == 1


@pytest.mark.parametrize("save", [save_class_unet, save_dit, save_sd, save_if_sr, save_sd3, save_flux])
def test_the_teachers_network_tells_samples_apart(save, tmp_path):
    """A view a sample, whatever the family and the batch, and nothing is left behind in the network."""
    frozen = load_teacher(str(save(tmp_path)))
    features = TeacherFeatures.of(frozen, frozen.t_range[0])
    assert features is not None
    samples = sample_noise(0, 0, 3, frozen.shape)
    condition = Condition.cat([adapter_of(frozen).blank(1)] * 3).add(guidance=torch.full((3,), 2.0))
    views = features.read(samples, condition)
    assert views.ndim == 2 and len(views) == 3 and torch.isfinite(views).all()
    assert (views[0] - views[1]).abs().max() > 1e-4
    alone = features.read(samples[1:2], condition.index(slice(1, 2)))
    assert torch.allclose(alone, views[1:2], atol=1e-4)
    assert not features.middle._forward_hooks


def test_a_compiled_network_is_shown_samples_too(tiny):
    frozen, samples = load_teacher(str(tiny)), sample_noise(0, 0, 3, (1, 8, 8))
    features = TeacherFeatures.of(frozen, frozen.t_range[0])
    plain = features.read(samples, Condition())
    frozen.denoiser.network.compile(backend="eager")
    frozen.x0(samples, torch.full((3,), 0.5))
    assert torch.equal(features.read(samples, Condition()), plain)


def test_a_run_compares_views(tiny, tmp_path):
    distill(str(tiny), tmp_path / "run", settings(4, batch_size=8, watch_every=1))
    look, stored = read_watch(tmp_path / "run")[-1], load_file(tmp_path / "run" / "path_ends.safetensors")
    channels = load_teacher(str(tiny)).denoiser.network.config.block_out_channels[-1]
    assert stored["views"].shape == (len(stored["ends"]), channels)
    assert look["frechet_distance"] > 0 and look["teacher_variance"] < float(stored["views"].var(0).sum()) * 1.1


def test_looks_beside_other_ends_are_forgotten(tiny, tmp_path):
    """A run that another version began, or with more noises, holds distances that are not to be compared with these."""
    run = tmp_path / "run"
    distill(str(tiny), run, settings(4, batch_size=8, watch_every=1))
    watch = Watch(load_teacher(str(tiny)), Unconditional(), (0.02, 0.7), run, WatchPlan(4, 1), 8)
    watch.begin(2)
    assert read_watch(run) == []


def test_features_that_overflow_give_way_to_values(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(TeacherFeatures, "read", lambda self, samples, condition: samples.flatten(1)[:, :5] * math.nan)
    distill(str(tiny), tmp_path / "run", settings(4, batch_size=8, watch_every=1))
    stored = load_file(tmp_path / "run" / "path_ends.safetensors")
    assert torch.equal(stored["views"], stored["ends"].flatten(1))
    assert all(math.isfinite(look["frechet_distance"]) for look in read_watch(tmp_path / "run"))
