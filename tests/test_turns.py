"""A consistency student that begins with what a path student answers, and what cannot be made one."""

from __future__ import annotations

import pytest
import torch

from bootdiff.core.errors import BootdiffError
from bootdiff.core.randomness import sample_noise
from bootdiff.distillation.distill import distill
from bootdiff.methods.registry import find_method, names
from bootdiff.students.consistency import ConsistencyStudent
from bootdiff.students.files import load_student
from bootdiff.students.path import PathStudent
from bootdiff.teachers import load_teacher
from test_siblings import TEACHER
from tiny_unet import save_teacher

FAST = {"steps": 6, "batch_size": 4, "watch_every": 0, "sample_every": 0, "pairs": 8, "pair_steps": 2}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return load_teacher(save_teacher(tmp_path_factory.mktemp("tiny") / "teacher"))


def test_it_answers_noise_as_the_path_student_does(teacher):
    """At t_max the boundary's share of the noise is small, and the network's answer is the path student's image."""
    path, untrained = (PathStudent.from_teacher(teacher, None, 0.98) for _ in range(2))
    with torch.no_grad():
        for weight in path.network.parameters():
            weight.add_(0.02 * torch.randn_like(weight, generator=torch.Generator().manual_seed(0)))
    new = ConsistencyStudent.begun_from(path, teacher)
    eps = sample_noise(3, 0, 8, teacher.shape)
    time = torch.full((8,), path.t_max)
    skip, out = (v.item() for v in new.boundary.factors(time[:1], new.t_min, new.schedule))
    with torch.no_grad():
        expected = skip * new.schedule.start_scale(path.t_max) * eps + out * path.image(eps)
        assert (new.image(eps) - expected).abs().max() < 1e-4
        assert (path.image(eps) - untrained.image(eps)).abs().max() > 0.01  # it is not the teacher's own answer


def test_consistency_goes_on_from_boot_in_one_run(teacher, tmp_path):
    kind = find_method("boot+consistency")
    assert kind.student == "consistency" and "boot+consistency" in names() and "consistency+direct" not in names()
    settings = kind.settings(**FAST, learning_rate=1e-9, ema_decay=0.0, boot={"steps": 6, "learning_rate": 1e-2})
    distill(teacher, tmp_path / "run", settings, "boot+consistency")
    first, last = load_student(tmp_path / "run" / "boot", teacher), load_student(tmp_path / "run", teacher)
    assert (first.kind, last.kind) == ("path", "consistency")
    eps = sample_noise(3, 0, 8, teacher.shape)
    with torch.no_grad():
        # The rate is next to 0, so that only the boundary's share of the noise differs.
        assert (first.image(eps) - last.image(eps)).abs().max() < 0.05


def test_it_goes_on_from_a_saved_path_student(teacher, tmp_path):
    boot = find_method("boot")
    distill(teacher, tmp_path / "boot", boot.settings(steps=4, batch_size=4, watch_every=0, sample_every=0))
    settings = find_method("consistency").settings(**FAST, start=str(tmp_path / "boot"))
    distill(teacher, tmp_path / "run", settings, "consistency")
    assert load_student(tmp_path / "run", teacher).kind == "consistency"


@pytest.mark.parametrize(
    "method, words, said",
    [
        ("boot+consistency", {"guidance_range": [1.0, 4.0], "null_class": 0}, "has one guidance weight and no range"),
        ("consistency+boot", {}, "method boot cannot go on from consistency in one run"),
    ],
)
def test_what_cannot_be_turned_is_refused_before_anything_is_written(tmp_path, method, words, said):
    with pytest.raises(BootdiffError, match=said):
        settings = find_method(method).settings(**FAST, **words)
        distill(load_teacher("digits-class"), tmp_path / "run", settings, method)
    assert not (tmp_path / "run").exists()


def test_a_teacher_without_a_network_is_refused(tmp_path):
    settings = find_method("boot+consistency").settings(**FAST)
    with pytest.raises(BootdiffError, match="takes a teacher with a network"):
        distill(TEACHER, tmp_path / "run", settings, "boot+consistency")
    assert not (tmp_path / "run").exists()
