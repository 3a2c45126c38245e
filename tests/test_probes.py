"""What looks ask of each kind of student, on teachers whose paths are known."""

from __future__ import annotations

import json

import pytest
import torch

from bootdiff import Gaussian, load_teacher
from bootdiff.core.condition import Condition
from bootdiff.data.conditions import Unconditional
from bootdiff.distillation.distill import distill
from bootdiff.methods.registry import METHODS, find_method
from bootdiff.monitoring.look import figures_of
from bootdiff.monitoring.noises import Noises
from bootdiff.monitoring.probes import PROBES
from bootdiff.monitoring.pulse import Pulse
from bootdiff.monitoring.teacher_path import TeacherPath
from bootdiff.monitoring.watch_plan import PROBED
from bootdiff.schedules import RectifiedFlow
from bootdiff.solvers import Heun, even_times, solve
from bootdiff.students.consistency import ConsistencyStudent
from bootdiff.students.denoising import DenoisingStudent
from bootdiff.students.kinds import KINDS, student_kind
from bootdiff.students.path import PathStudent

TIMES = (0.02, 0.9)


def looked(student, teacher, tmp_path) -> dict:
    noises = Noises(teacher.shape, Unconditional(), 16)
    truth = TeacherPath(teacher, noises, TIMES, None, tmp_path).solve(torch.device("cpu"))
    return figures_of(student, truth, noises, None)


def test_every_kind_is_asked_what_it_can_answer(tmp_path):
    assert PROBES.keys() == PROBED.keys()
    teacher = Gaussian(0.5, 0.5, (2, 4, 4))
    for kind in KINDS:
        student = student_kind(kind).from_teacher(teacher, *TIMES)
        figures = looked(student, teacher, tmp_path / kind)
        assert {"path_error", "frechet_distance", "diversity"} <= figures.keys()
        assert {"boundary": "boundary_error", "consistency": "consistency_error"}.get(
            next(iter(student.probes), ""), "diversity"
        ) in figures
        assert ("boundary_error" in figures) == (kind in ("path", "trajectory"))


class Exact(ConsistencyStudent):
    """A consistency student that knows its teacher's path: it solves it from wherever it is asked."""

    off = 0.0

    def forward(self, x_t, t, condition=None):
        low = 0.02
        alpha, sigma = (v.reshape(-1, 1, 1, 1) for v in self.schedule.alpha_sigma(t))
        first = (torch.full_like(t, low),)
        alpha_s, sigma_s = (v.reshape(-1, 1, 1, 1) for v in self.schedule.alpha_sigma(*first))
        # of N(m, c²) every x_t is mapped by its quantile, and y_s is what is left of x_s without its noise
        eps = (x_t - alpha * 0.5) / (alpha.square() * 0.25 + sigma.square()).sqrt()
        x_s = alpha_s * 0.5 + (alpha_s.square() * 0.25 + sigma_s.square()).sqrt() * eps
        return (x_s - sigma_s * eps) / alpha_s + self.off * t.reshape(-1, 1, 1, 1)


def test_a_consistency_error_is_that_half_way_along_the_path(tmp_path):
    teacher = Gaussian(0.5, 0.5, (2, 4, 4))
    student = Exact.from_teacher(teacher, *TIMES)
    noises = Noises(teacher.shape, Unconditional(), 16)
    truth = TeacherPath(teacher, noises, TIMES, None, tmp_path).solve(torch.device("cpu"))
    (eps, condition), *_ = noises.batches()
    half = solve(teacher, eps, even_times(16, *TIMES), Heun(), condition)[8]
    torch.testing.assert_close(truth.middles, half)
    own = looked(student, teacher, tmp_path)["consistency_error"]
    student.off = 0.3
    worse = looked(student, teacher, tmp_path)["consistency_error"]
    assert worse - own > 0.5 * (0.3 * 0.46) ** 2 and own < 0.02


def test_a_straight_path_has_no_error_and_a_curved_one_has(tmp_path):
    teacher = Gaussian(0.5, 0.5, (2, 4, 4), RectifiedFlow())

    class Straight(DenoisingStudent):
        def forward(self, x_t, t, condition=None):
            return torch.full_like(x_t, 0.25)

    assert looked(Straight.from_teacher(teacher, *TIMES), teacher, tmp_path)["straightness"] == 0

    class Curved(DenoisingStudent):
        def forward(self, x_t, t, condition=None):
            return t.reshape(-1, 1, 1, 1).expand_as(x_t)

    # answers at 8 even times from 0.9 down; the last is at 0.13
    t = torch.tensor([0.9 - k * 0.88 / 8 for k in range(8)])
    expected = float((t - t[-1]).square().mean())
    made = looked(Curved.from_teacher(teacher, *TIMES), teacher, tmp_path)["straightness"]
    assert made == pytest.approx(expected, rel=1e-4)


def test_the_pulse_of_a_student_without_a_boundary_is_its_samples():
    teacher = Gaussian(0.5, 0.5, (2, 4, 4))
    denoising = Pulse.of(DenoisingStudent.from_teacher(teacher, *TIMES), teacher, Unconditional())
    path = Pulse.of(PathStudent.from_teacher(teacher, *TIMES), teacher, Unconditional())
    assert (denoising.edge, denoising.teacher) == (0, 0) and path.teacher > 0
    assert Pulse(1e6, 0, 0).alarm(denoising) and Pulse(denoising.samples, 0, 0).alarm(denoising) is None


def test_a_method_of_another_kind_is_looked_at_and_saved(tmp_path, monkeypatch):
    """A method that trains denoising students runs, is looked at, and hands over its kind."""
    monkeypatch.setitem(METHODS, "toy-denoising", "toy_denoising:ToyDenoising")
    kind = find_method("toy-denoising").settings
    asked = kind(steps=6, batch_size=8, watch_every=3, sample_every=0, pairs=16, pair_steps=4)
    student = distill("digits", tmp_path, asked, "toy-denoising")
    assert student.kind == "denoising"
    looks = [json.loads(line) for line in (tmp_path / "watch.jsonl").read_text().splitlines()]
    assert len(looks) == 2 and all("straightness" in look and "boundary_error" not in look for look in looks)
    own = student.as_teacher()
    x = torch.randn(2, *load_teacher("digits").shape, generator=torch.Generator().manual_seed(0))
    assert own.x0(x, torch.full((2,), 0.5), Condition()).shape == x.shape
