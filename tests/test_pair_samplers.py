"""Stored samples of the teacher that one of diffusers' samplers makes, and what a correction learns of them."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from bootdiff import BootdiffError
from bootdiff.config.settings import make_settings
from bootdiff.core.condition import Condition
from bootdiff.core.randomness import Draw, sample_noise, stored_seed
from bootdiff.core.turn import Turn
from bootdiff.data.sources import Batch, Noise
from bootdiff.data.sources.base import Ahead
from bootdiff.distillation.distill import distill
from bootdiff.distillation.pairs import sampler_for
from bootdiff.distillation.plan import plan_distillation
from bootdiff.losses.distances import AbsoluteError
from bootdiff.methods.registry import find_method
from bootdiff.methods.settings import target_limit
from bootdiff.samplers.stock import candidates
from bootdiff.storage.passes import trained_passes
from bootdiff.teachers import limited, load_teacher
from bootdiff.training.planned import planned_passes


class OwnPairs(Ahead):
    """Noises as their own samples."""

    kind, data_free = "pairs", True

    def batch(self, draw: Draw) -> Batch:
        noise = draw.normal("noise", (1, 8, 8))
        return Batch(noise, data=noise)

    def modules(self) -> tuple[()]:
        return ()


WORDS = {"steps": 4, "batch_size": 4, "pairs": 8, "pair_steps": 3, "watch_every": 0, "sample_every": 0}
PAIRED = {**WORDS, "fake_warmup": 1, "pair_weight": 0.3, "pair_solver": "dpm-solver:leading"}


def settings(name: str, **words):
    return make_settings(find_method(name).settings, words)


@pytest.mark.parametrize("solver, spacing, calls", [
    ("dpm-solver:leading", "leading", 3), ("unipc:trailing", "trailing", 3), ("heun:trailing", "trailing", 5),
    ("edm:karras", "karras", 5), ("pndm:leading", "leading", 4),
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
    assert trained_passes(tmp_path / "run")["pairs"] == planned_passes(asked)["pairs"] == 8 * calls


@pytest.mark.parametrize("limit", ["none", "teacher"])
def test_stored_samples_are_limited_as_the_targets_are(limit):
    """Without a limit some leave the range of pixels, as the path's ends do."""
    teacher = load_teacher("digits")
    asked = limited(teacher, target_limit(settings("direct", target_limit=limit), teacher))
    images = sampler_for(asked, "dpm-solver:leading", 10)(sample_noise(0, 0, 64, teacher.shape), Condition())
    assert (float(images.abs().max()) > 1) == (limit == "none")


@pytest.mark.parametrize("name", ["dm", "sid"])
@pytest.mark.parametrize("scale", [1.0, 0.9])
def test_the_regression_is_on_the_pairs_and_all_else_on_fresh_noises(name, scale):
    """Eq. C8, with the noise of Eq. C7; without pairs all terms learn from the batch's own noise."""
    teacher, method = load_teacher("digits"), find_method(name)
    words = {"steps": 60, "batch_size": 8, "boot_weight": 0.5, "distance": "l1", "noise_scale": scale}
    asked = make_settings(method.settings, {**words, "pair_weight": 0.3})
    assert asked.source == "pairs" and not asked.reads_features
    student = method.new_student(teacher, asked)
    paired, alone = (
        method.build(teacher, one, None, student) for one in (asked, make_settings(method.settings, words))
    )
    assert list(paired.learners()) == ["student", "fake"]
    networks = {key: learner.module for key, learner in paired.learners().items()}
    with torch.no_grad():
        for value in networks["fake"].parameters():  # a new one is the teacher, and corrects nothing
            value.mul_(1.1)
    draw = Draw(0, 0, "x", 0, 8, 8)
    noise, data = draw.normal("a", teacher.shape), draw.normal("b", teacher.shape)

    def totals(objective, name: str, offset: float) -> list[float]:
        batch = Batch(noise + offset, data=data + offset)
        terms = objective.losses(networks, Turn(name, 60, 0.5, draw), batch)
        return [float(term().total.detach()) for term in terms]

    with torch.no_grad():
        expected = 0.3 * AbsoluteError()(paired.sample(networks, scale * noise, Condition()), data).mean()
    for name in ("student", "fake"):
        here, there = totals(paired, name, 0), totals(paired, name, 1)
        regression = 1 if name == "student" else 0
        if regression:
            assert here[-1] == pytest.approx(float(expected), rel=1e-5) and here[-1] != there[-1]
        own = len(here) - regression
        assert own == len(totals(alone, name, 0)) and here[:own] == there[:own] and all(here)
        assert all(a != b for a, b in zip(totals(alone, name, 0), totals(alone, name, 1), strict=True))


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
    ("dm", {"pair_weight": 0.3, "pair_solver": "dpm:leading"}, r"expects one of heun, euler, ddim:.*got dpm:leading"),
    ("dm", {"pair_solver": "dpm-solver:leading"}, "pair_solver is of stored samples, and this run stores none"),
    ("consistency", {"images": "digits", "pair_solver": "euler"}, "pair_solver is of stored samples"),
    ("direct", {"pair_solver": "ddpm:trailing"}, "pair_solver expects one of"),
    ("direct", {"pair_solver": "unipc:own"}, "got unipc:own. Did you mean"),
    ("direct", {"pair_solver": "dpm-solver:leading", "pair_steps": 1000}, None),
    *(("direct", {"pair_solver": word}, "pair_solver") for word in ("", ":", "unipc", "unipc:", ":leading", "garbage")),
    ("path", {"pair_solver": "unipc:trailing"}, "trajectories are states of the teacher's path"),
    ("tbcm", {"pair_solver": "unipc:trailing"}, "trajectories are states of the teacher's path"),
    ("reflow", {"pair_solver": "unipc:trailing"}, "flow2 of reflow learns samples of the student before"),
    ("reflow", {"flow1": {"pair_solver": "unipc:trailing"}}, None),  # whose samples are the teacher's
])  # fmt: skip
def test_a_solver_that_there_is_not_is_refused_before_anything_is_made(method, words, told, tmp_path):
    def plan():
        base = WORDS if method != "dm" or "pair_weight" in words else {"batch_size": 4}
        base = base if "images" not in words else {"batch_size": 4}
        asked = settings(method, **{**base, "steps": 60, **words})
        return plan_distillation("digits", tmp_path / "run", asked, method)

    if told is None:
        assert plan().source.kind == "pairs"
    else:
        with pytest.raises(BootdiffError, match=told):
            plan()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words, source, told", [
    ({"pair_weight": 0.3}, Noise((1, 8, 8)), "pair_weight needs samples of the teacher"),
    ({"critic_weight": 0.3}, Noise((1, 8, 8)), "critic_weight needs samples of the teacher"),
    ({}, OwnPairs(), "both are 0"),
])  # fmt: skip
def test_a_source_of_python_that_does_not_fit_is_refused(words, source, told, tmp_path):
    asked = settings("dm", steps=60, batch_size=4, **words)
    with pytest.raises(BootdiffError, match=told):
        distill("digits", tmp_path / "run", asked, "dm", source=source)
    assert not (tmp_path / "run").exists()
