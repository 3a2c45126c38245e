"""Direct distillation: its mathematics on analytic teachers, and its runs."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from bootdiff import BootdiffError, Cosine, Gaussian, Student
from bootdiff.core.randomness import Draw
from bootdiff.core.turn import Turn
from bootdiff.data.sources import Batch
from bootdiff.distillation.distill import distill
from bootdiff.distillation.pairs import PathSolver, path_times
from bootdiff.losses.distances import AbsoluteError, SquaredError
from bootdiff.methods.base import Learner
from bootdiff.methods.direct import Direct, DirectSettings
from bootdiff.methods.registry import find_method
from bootdiff.samplers.rows import reference_path
from bootdiff.solvers import Heun
from toys import same

TURN = Turn("student", 0, 0.0, Draw(0, 0, "student", 0, 8, 8))


class Pairs:
    """Pairs that are solved on the spot."""

    def __init__(self, teacher, steps: int = 50) -> None:
        times, every = path_times(steps, 1, *teacher.t_range)
        self.solve = PathSolver(teacher, Heun(), times, every, "cpu")
        self.shape = teacher.shape

    def batch(self, draw: Draw) -> Batch:
        noise = draw.normal("noise", self.shape)
        return Batch(noise, data=self.solve(noise, Batch(noise).condition)["data"])


def objective(teacher, student=None, distance=None) -> Direct:
    return Direct(Learner(student or Student.from_teacher(teacher), 1e-3), Pairs(teacher), distance or SquaredError())


class Path(nn.Module):
    """The teacher's exact path, in the student's place."""

    def __init__(self, teacher) -> None:
        super().__init__()
        self.path = reference_path(teacher, *teacher.t_range)

    def forward(self, eps: Tensor, t: Tensor, condition) -> Tensor:
        return self.path(eps, condition)


def loss(asked: Direct, networks, batch: Batch | None = None) -> Tensor:
    batch = batch or asked.source.batch(TURN.draw)
    (term,) = asked.losses(networks, TURN, batch)
    return term().total


def test_the_loss_is_zero_at_the_teachers_own_path():
    teacher = Gaussian(0.5, 0.5, (4,))
    asked = objective(teacher)
    assert float(loss(asked, {"student": Path(teacher)})) < 1e-9
    assert float(loss(asked, {"student": asked.student.module})) > 0.1


def test_the_loss_by_hand():
    """Eq. 3: the mean over the batch of the mean squared (or absolute) difference."""
    teacher = Gaussian(0.5, 0.5, (2,))
    batch = Batch(torch.zeros(2, 2), data=torch.tensor([[1.0, 3.0], [0.0, -2.0]]))

    class Constant(nn.Module):
        def forward(self, eps, t, condition):
            return torch.ones_like(eps)

    for distance, expected in ((SquaredError(), (0 + 4 + 1 + 9) / 4), (AbsoluteError(), (0 + 2 + 1 + 3) / 4)):
        assert float(loss(objective(teacher, distance=distance), {"student": Constant()}, batch)) == expected


def test_gradients_reach_the_student_only():
    teacher = Gaussian(0.5, 0.5, (4,))
    asked = objective(teacher)
    assert list(asked.learners()) == ["student"] and asked.turns(0) == ("student",) and not asked.frozen()
    batch = asked.source.batch(TURN.draw)
    batch.data.requires_grad_(True)
    gradients = torch.autograd.grad(
        loss(asked, {"student": asked.student.module}, batch),
        [*asked.student.module.parameters(), batch.data],
        allow_unused=True,
    )
    assert any(g is not None and g.abs().sum() > 0 for g in gradients[:-1])
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def asked_for(**fields) -> DirectSettings:
    quiet = {"watch_every": 0, "sample_every": 0, "pair_steps": 10}
    return DirectSettings(**{"steps": 4, "batch_size": 8, "learning_rate": 1e-3, **quiet, **fields})


def test_the_same_seed_gives_the_same_bits_and_another_one_others(tmp_path):
    teacher = Gaussian(0.5, 0.5, (4,))
    first, again, other = (
        distill(teacher, tmp_path / name, asked_for(seed=seed), "direct")
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert same(first.state_dict(), again.state_dict()) and not same(first.state_dict(), other.state_dict())


def test_it_learns_a_gaussians_path(tmp_path):
    """The path of a Gaussian is a straight map of the noise, which a small network learns to a hundredth."""
    teacher = Gaussian(0.5, 0.5, (2,), Cosine())
    student = distill(teacher, tmp_path, asked_for(steps=300, batch_size=64, learning_rate=3e-3, pairs=2048), "direct")
    eps = torch.randn(256, 2, generator=torch.Generator().manual_seed(5))
    end = reference_path(teacher, student.t_min, student.t_max)(eps, Batch(eps).condition)
    assert float((student.sample(eps) - end).square().mean()) < 0.01 * float(end.var())


def test_a_student_goes_on_by_another_method_in_the_same_run(tmp_path):
    teacher = Gaussian(0.5, 0.5, (4,))
    kind = find_method("direct+dm").settings
    words = {"steps": 2, "batch_size": 8, "watch_every": 0, "sample_every": 0, "fake_warmup": 1}
    student = distill(teacher, tmp_path, kind(**words, direct={"steps": 3, "pair_steps": 5}), "direct+dm")
    stage = json.loads((tmp_path / "direct" / "done.json").read_text())
    assert stage["steps"] == 3 and json.loads((tmp_path / "done.json").read_text())["steps"] == 2
    assert sorted(path.name for path in (tmp_path / "direct" / "pairs").iterdir()) == [
        "00000.safetensors",
        "manifest.json",
    ]
    assert not (tmp_path / "pairs").exists()
    assert (student.kind, student.calls, student.any_calls) == ("denoising", 1, False)


@pytest.mark.parametrize(
    "words, told",
    [
        (["--source", "images"], "method direct learns from pairs, not from images"),
        (["--images", "digits"], "method direct learns from pairs, not from images"),
        (["--set", "pairs=0"], "pairs"),
        (["--method", "dm+direct"], "method direct cannot go on from dm in one run; it follows progressive or reflow"),
        (["--method", "direct+direct"], "cannot go on from direct"),
        (["--method", "dirct"], "Did you mean 'direct'"),
        (["--method", "boot+dirct"], "Did you mean 'direct'"),
        (["--method", "direct+dm", "--set", "pairs=200"], "leave one of them out, or set direct.pairs=200"),
        (["--method", "direct+dm", "--set", "boot.steps=3"], "no stage 'boot'; direct.steps is a setting of the"),
        (["--set", "boot.steps=3"], "there is no stage 'boot'"),
        (["--method", "progressive", "--images", ""], "setting images: string should have at least 1 character"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(cli, tmp_path, words, told):
    result = cli("distill", "digits", "--output", tmp_path / "run", "--method", "direct", *words)
    assert result.code == 2 and told in result.err and len(result.err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_fewer_than_a_steps_pairs_are_no_source():
    with pytest.raises(BootdiffError, match="pairs"):
        asked_for(pairs=0)


def test_a_setting_of_the_last_stage_alone_is_told(cli, tmp_path):
    """The first stage keeps its own rate and steps, unless they are named."""
    words = ["distill", "digits", "--output", tmp_path, "--method", "direct+dm", "--dry-run"]
    told = cli(*words, "--set", "learning_rate=0.5", "--set", "direct.steps=3", "--steps", 200)
    assert told.code == 0 and told.err.count("note:") == 1, told.err
    assert "note: learning_rate is the last stage's alone: direct.learning_rate stays 0.0001." in told.err, told.err
    silent = cli(*words, "--set", "seed=3", "--set", "direct.learning_rate=0.1")
    assert silent.code == 0 and "note:" not in silent.err
