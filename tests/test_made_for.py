"""Students that were made for one number of calls, and rounds that share the samples of the run's teacher."""

from __future__ import annotations

import json

import pytest
import torch

from bootdiff import BootdiffError, load_student, load_teacher, save_student
from bootdiff.core.condition import Condition
from bootdiff.core.randomness import sample_noise
from bootdiff.distillation.distill import distill
from bootdiff.evaluation.entries import own_calls
from bootdiff.methods import registry
from bootdiff.methods.method import rounds
from bootdiff.methods.registry import METHODS, find_method
from bootdiff.samplers.several import looked_at, student_sampler, student_samplers
from bootdiff.sampling.sample import Wanted, draw_samples
from bootdiff.students.denoising import DenoisingStudent
from bootdiff.training.planned import planned_passes
from toy_denoising import ToyRounds, ToyRoundsSettings

CALLS = {"n4": 4, "n2": 2, "n1": 1}
FAST = {"steps": 3, "batch_size": 8, "watch_every": 3, "sample_every": 3, "log_every": 1, "checkpoint_every": 2}
FAST |= {"pairs": 16, "pair_steps": 4, "learning_rate": 1e-3}


def stages(settings):
    return rounds("toy-halves", settings, {name: {} for name in CALLS}, DenoisingStudent.as_teacher, own_samples=False)


class Halves(ToyRounds):
    """The toy in rounds, whose students are made for a number of calls each."""

    @classmethod
    def from_settings(cls, teacher, settings, source, student):
        student.made_for(settings.few)
        return super().from_settings(teacher, settings, source, student)


class HalvesSettings(ToyRoundsSettings):
    """Its settings: the number of calls."""

    few: int = 1


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    from bootdiff.methods.method import method

    declared = method("toy-halves", HalvesSettings, sources=("pairs",), student="denoising", stages=stages)(Halves)
    monkeypatch.setitem(METHODS, "toy-halves", declared)
    registry.find_method.cache_clear()
    yield
    registry.find_method.cache_clear()


@pytest.fixture
def four(tmp_path):
    student = DenoisingStudent.from_teacher(load_teacher("digits"))
    student.made_for(4)
    save_student(student, tmp_path / "student")
    return tmp_path / "student"


def test_a_student_made_for_some_calls_makes_its_images_in_these(four):
    student = load_student(four)
    assert (student.calls, student.any_calls) == (4, False)
    eps = sample_noise(0, 0, 2, student.shape)
    four_calls = student_sampler(student)
    assert four_calls.calls == looked_at(student).calls == 4 and own_calls(four_calls.sample) == ("few steps", 4)
    assert [one.calls for one in student_samplers(student)] == [4]
    drawn = draw_samples(four, Wanted(num=2))
    assert "4 calls an image" in drawn.told
    torch.testing.assert_close(drawn.images, four_calls.sample(eps, Condition()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("calls", [1, 2, 8])
def test_another_number_of_calls_is_refused_in_one_line(calls, four, cli, tmp_path):
    with pytest.raises(BootdiffError, match=r"this denoising student was made for 4 calls, and for no other number"):
        student_sampler(load_student(four), calls)
    result = cli("sample", four, "--calls", calls, "--num", 1, "--output", tmp_path / "x.png")
    assert result.code == 2 and "made for 4 calls" in result.err and len(result.err.splitlines()) == 1
    assert not (tmp_path / "x.png").exists()


def test_a_correction_goes_on_from_no_student_of_several_calls(four, tmp_path):
    settings = find_method("dm").settings(start=str(four), steps=2, batch_size=2, fake_warmup=1)
    with pytest.raises(BootdiffError, match="was made for 4 calls, and method dm corrects the image of one call"):
        distill("digits", tmp_path / "run", settings, "dm")


def test_rounds_that_share_their_samples_keep_them_once_and_are_judged_by_the_runs_teacher(tmp_path):
    run = tmp_path / "run"
    words = {name: {"few": calls} for name, calls in CALLS.items()}
    words["n2"]["steps"] = 1  # fewer samples than the others, of the same ones
    distill("digits", run, HalvesSettings(**FAST, **words), "toy-halves")
    assert (run / "pairs/manifest.json").is_file()
    assert not list(run.glob("rounds/*/pairs"))
    folders = [run / "rounds/n4", run / "rounds/n2", run]
    assert [load_student(folder).calls for folder in folders] == [4, 2, 1]
    made = [json.loads((folder / "done.json").read_text())["passes"].get("pairs", 0) for folder in folders]
    assert made[0] == 16 * 9 and not any(made[1:])
    assert planned_passes(HalvesSettings(**FAST, **words))["pairs"] == 16 * 9
    ends = [(folder / "path_ends.safetensors").read_bytes() for folder in folders]
    assert ends[0] == ends[1] == ends[2]
