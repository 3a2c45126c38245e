"""Stored samples of the teacher that one of diffusers' samplers makes, and what a correction learns of them."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from bootdiff import BootdiffError
from bootdiff.core.condition import Condition
from bootdiff.core.randomness import Draw, sample_noise, stored_seed
from bootdiff.core.turn import Turn
from bootdiff.data.sources import Batch
from bootdiff.distillation.distill import distill
from bootdiff.distillation.plan import plan_distillation
from bootdiff.losses.distances import AbsoluteError
from bootdiff.methods.registry import find_method
from bootdiff.config.settings import make_settings
from bootdiff.samplers.stock import candidates
from bootdiff.storage.passes import trained_passes
from bootdiff.teachers import load_teacher
from bootdiff.training.planned import planned_passes

WORDS = {"steps": 4, "batch_size": 4, "pairs": 8, "pair_steps": 3, "watch_every": 0, "sample_every": 0}
PAIRED = {**WORDS, "fake_warmup": 1, "pair_weight": 0.3, "pair_solver": "dpm-solver:leading"}


def settings(name: str, **words):
    return make_settings(find_method(name).settings, words)


@pytest.mark.parametrize("solver, spacing, calls", [
    ("dpm-solver:leading", "leading", 3), ("unipc", "trailing", 3), ("heun:trailing", "trailing", 5)
])  # fmt: skip
def test_stored_samples_are_the_samplers(solver, spacing, calls, tmp_path):
    """The same images as the evaluation's sampler of that name makes of the same noises, and as many calls."""
    teacher = load_teacher("digits")
    asked = settings("direct", **{**WORDS, "pair_solver": solver})
    distill(teacher, tmp_path / "run", asked, "direct")
    (shard,) = (tmp_path / "run/pairs").glob("*.safetensors")
    found = candidates(teacher, solver.partition(":")[0], 3)
    (sampler,) = (one for one in found if one.row.spacing == spacing)
    assert sampler.row.calls == calls
    images = sampler.sample(sample_noise(stored_seed(0), 0, 8, teacher.shape), Condition())
    torch.testing.assert_close(load_file(shard)["data"], images, rtol=0, atol=1e-5)
    counted, planned = trained_passes(tmp_path / "run"), planned_passes(asked)
    assert counted["pairs"] == 8 * calls and 0 <= planned["pairs"] - counted["pairs"] <= 8


@pytest.mark.parametrize("name", ["dm", "sid"])
@pytest.mark.parametrize("scale", [1.0, 0.9])
def test_the_regression_is_on_the_pairs_and_all_else_on_fresh_noises(name, scale):
    """Eq. C8, with the noise of Eq. C7; the other terms are those of a batch without pairs."""
    teacher, method = load_teacher("digits"), find_method(name)
    words = {"steps": 60, "batch_size": 8, "pair_weight": 0.3, "boot_weight": 0, "distance": "l1", "noise_scale": scale}
    asked = make_settings(method.settings, words)
    assert asked.source == "pairs" and not asked.reads_features
    student = method.new_student(teacher, asked)
    objective = method.build(teacher, asked, None, student)
    assert list(objective.learners()) == ["student", "fake"]
    networks = {key: learner.module for key, learner in objective.learners().items()}
    draw = Draw(0, 0, "x", 0, 8, 8)
    turn, noise, data = Turn("student", 60, 0.5, draw), draw.normal("a", teacher.shape), draw.normal("b", teacher.shape)
    correction, regression = objective.losses(networks, turn, Batch(noise, data=data))
    with torch.no_grad():
        expected = 0.3 * AbsoluteError()(objective.sample(networks, scale * noise, Condition()), data).mean()
    torch.testing.assert_close(regression().total.detach(), expected)
    other = objective.losses(networks, turn, Batch(noise + 1, data=data + 1))
    torch.testing.assert_close(correction().total, other[0]().total)
    assert not torch.equal(regression().total, other[1]().total)


@pytest.mark.parametrize("method", ["dm", "boot+dm", "direct+sid"])
def test_a_run_with_the_teachers_samples_is_free_of_data_and_ends_the_same_again(method, tmp_path):
    first = method.partition("+")[0]
    own = {first: {"steps": 2, **({"pairs": 4, "pair_steps": 2} if first == "direct" else {})}} if "+" in method else {}
    asked = settings(method, **PAIRED, **own, checkpoint_every=2)
    student = distill("digits", tmp_path / "run", asked, method)
    assert student.data_free
    again = distill("digits", tmp_path / "again", asked, method).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in student.state_dict().items())


@pytest.mark.parametrize("method, words, told", [
    ("dm", {"pair_weight": 0.3, "source": "noise"}, "pair_weight needs samples of the teacher"),
    ("dm", {"pair_weight": 0.3, "pair_solver": "dpm"}, r"pair_solver expects one of heun, euler, ddim.*got 'dpm'"),
    ("direct", {"pair_solver": "ddpm"}, "pair_solver expects one of"),
    ("direct", {"pair_solver": "unipc:own"}, "unipc has the spacings trailing, leading, karras, got 'own'"),
    ("direct", {"pair_solver": "dpm-solver", "pair_steps": 1000}, None),
    ("direct", {"pair_solver": ""}, "pair_solver"),
    ("path", {"pair_solver": "unipc"}, "trajectories are states of the teacher's path"),
    ("tbcm", {"pair_solver": "unipc"}, "trajectories are states of the teacher's path"),
])  # fmt: skip
def test_a_solver_that_there_is_not_is_refused_before_anything_is_made(method, words, told, tmp_path):
    def plan():
        asked = settings(method, **{**WORDS, "steps": 60, **words})
        return plan_distillation("digits", tmp_path / "run", asked, method)

    if told is None:
        assert plan().source.kind == "pairs"
    else:
        with pytest.raises(BootdiffError, match=told):
            plan()
    assert not (tmp_path / "run").exists()
