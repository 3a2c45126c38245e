"""Runs of the siblings: rounds with settings of their own, what follows a round, and students made for some calls."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
import torch

from bootdiff import BootdiffError, Gaussian, load_student, load_teacher
from bootdiff.core.condition import Condition
from bootdiff.core.randomness import SampleNoise, sample_noise
from bootdiff.distillation.distill import distill
from bootdiff.distillation.plan import plan_distillation
from bootdiff.evaluation.entries import evaluations_of
from bootdiff.methods.boot import BootSettings
from bootdiff.methods.method import rounds
from bootdiff.methods.registry import find_method
from bootdiff.monitoring.convergence import verdict_of
from bootdiff.samplers.base import sampled
from bootdiff.samplers.several import student_sampler
from bootdiff.samplers.students import StockStudent
from bootdiff.students.denoising import DenoisingStudent
from bootdiff.students.jump import JumpStudent
from bootdiff.students.trajectory import TrajectoryStudent
from toys import TELLING, close, command, same

FAST = {"steps": 3, "batch_size": 8, "watch_every": 0, "sample_every": 0, "log_every": 1, "checkpoint_every": 2}
FAST |= {"pairs": 16, "pair_steps": 4, "learning_rate": 1e-3}
SIBLINGS = {
    "progressive": {"start_calls": 2},
    "consistency": {"grid": 5},
    "tract": {"phases": [4, 2, 1]},
    "reflow": {"flows": 1},
    "dfno": {"trajectory_times": 3},
}


def settings(method: str, **words):
    return find_method(method).settings(**{**FAST, **SIBLINGS.get(method, {}), **words})


def manifest(folder) -> dict:
    return json.loads((folder / "pairs" / "manifest.json").read_text())


@pytest.mark.parametrize("method", SIBLINGS)
def test_the_same_seed_gives_the_same_bits_and_another_one_others(method, tmp_path):
    first, again, other = (
        distill("digits", tmp_path / name, settings(method, seed=seed), method)
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert same(first.state_dict(), again.state_dict()) and not same(first.state_dict(), other.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("method", SIBLINGS)
def test_a_run_that_is_killed_ends_as_an_undisturbed_one(method, tmp_path):
    """kill -9 at a checkpoint of its last round, and within the making of samples or an earlier round before that."""
    whole = distill("digits", tmp_path / "whole", settings(method, steps=4), method)
    run, words = tmp_path / "killed", ["distill", "digits", "--method", method, "--output", str(tmp_path / "killed")]
    given = {**FAST, **SIBLINGS[method], "steps": 4}
    for key, value in given.items():
        words += ["--set", f"{key}={value}"]
    for seen in ("making", "checkpoint 2"):
        command = [sys.executable, "-c", TELLING, *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            assert any(line.startswith(seen) for line in process.stdout)
            process.send_signal(signal.SIGKILL)
    student = distill("digits", run, settings(method, steps=4), method)
    assert same(student.state_dict(), whole.state_dict())


@pytest.mark.slow
@pytest.mark.multi
@pytest.mark.parametrize("method", SIBLINGS)
def test_two_processes_give_the_student_of_one(method, tmp_path):
    start = find_method(method).new_student(load_teacher("digits"), settings(method)).state_dict()
    if method == "dfno":
        start = None  # its layers are of other shapes before they are told their times
    words = ["--method", method, "--set", "ema_decay=0"]
    for key, value in {**FAST, **SIBLINGS[method]}.items():
        words += ["--set", f"{key}={value}"]
    found = []
    for count in (1, 2):
        folder = tmp_path / str(count)
        asked = command("distill", "digits", "--output", folder, *words, processes=count)
        done = subprocess.run(asked, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        found.append(load_student(folder).state_dict())
    close(found[1], found[0], start or {name: torch.zeros_like(value) for name, value in found[0].items()}, share=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["progressive", "tract", "consistency", "reflow"])
def test_the_exported_pipeline_makes_the_images_of_our_sampler(method, tmp_path):
    """At every number of calls that a student was made for, in stock diffusers, to 1e-5."""
    from diffusers import DiffusionPipeline

    distill("digits", tmp_path / "run", settings(method), method)
    folders = [*sorted((tmp_path / "run").glob("rounds/*")), tmp_path / "run"]
    tried = 0
    for folder in folders:
        student = load_student(folder)
        if not (folder / "student" / "model_index.json").exists():
            continue
        pipe = DiffusionPipeline.from_pretrained(folder / "student")
        pipe.set_progress_bar_config(disable=True)
        calls = student.calls if method != "tract" else 1
        if method == "tract" and student.calls > 1:  # told two times, which no stock scheduler does
            continue
        generators = [torch.Generator().manual_seed(i) for i in range(2)]
        stock = pipe(batch_size=2, num_inference_steps=calls, generator=generators, output_type="np").images
        ours = student_sampler(student, calls).sample(sample_noise(0, 0, 2, student.shape))
        ours = ((ours / 2 + 0.5).clamp(0, 1)).permute(0, 2, 3, 1).numpy()
        assert abs(stock - ours).max() < 1e-5
        again = sampled(StockStudent(folder / "student"), SampleNoise(0, 0, 2, student.shape), Condition())
        assert abs((again / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy() - ours).max() < 1e-5
        if student.calls == 1 and not student.any_calls:
            with pytest.raises(ValueError):  # more would be steps that it never learned
                pipe(batch_size=2, num_inference_steps=2)
        tried += 1
    assert tried


def test_a_data_set_smaller_than_a_batch_is_refused(tmp_path):
    asked = find_method("consistency-training").settings(steps=2, batch_size=2000, images="digits")
    with pytest.raises(
        BootdiffError, match=r"digits has 1,?797 images for this teacher, and a batch takes 2000; lower"
    ):
        plan_distillation("digits", tmp_path / "run", asked, "consistency-training")


def test_each_round_has_source_settings_of_its_own(tmp_path):
    asked = settings("reflow", **{"one-call": {"pairs": 8, "pair_steps": 2}, "flow1": {"steps": 5}, "pairs": None})
    distill("digits", tmp_path, asked, "reflow")
    last, first = manifest(tmp_path), manifest(tmp_path / "rounds" / "flow1")
    assert last["samples"] == [0, 8] and len(last["made"]["times"]) == 3
    assert first["samples"] == [0, 40] and len(first["made"]["times"]) == 5  # no more than its own steps read
    assert "round" in last["made"]["hashes"] and "round" not in first["made"]["hashes"]


def test_shared_samples_are_enough_for_the_longest_round_and_have_one_solver(tmp_path):
    asked = settings("progressive", n2={"steps": 5}, pairs=None)
    plan = plan_distillation("digits", tmp_path / "a", asked, "progressive")
    assert {one.source.settings.stored for one in (*plan.before, plan)} == {40}
    other = settings("progressive", n2={"pair_steps": 9})
    with pytest.raises(BootdiffError, match="the rounds share their samples, so pair_steps is one for all"):
        plan_distillation("digits", tmp_path / "b", other, "progressive")


def test_a_round_that_does_not_go_on_begins_as_the_runs_teacher(tmp_path, monkeypatch):
    from bootdiff.methods import reflow

    def afresh(asked):
        words = {"flow1": {"flows": 1, "one_call": False}, "one-call": {"flows": 1, "one_call": True}}
        return rounds("reflow", asked, words, DenoisingStudent.as_teacher, continues=False)

    monkeypatch.setattr(reflow.Reflow, "method", find_method("reflow"), raising=False)
    known = find_method("reflow")
    object.__setattr__(known, "stages", afresh)
    try:
        student = distill("digits", tmp_path, settings("reflow", learning_rate=1e-12), "reflow")
    finally:
        object.__setattr__(known, "stages", reflow.stages)
    eps = sample_noise(0, 0, 2, student.shape)
    teacher = DenoisingStudent.from_teacher(load_teacher("digits"), student.t_min, student.t_max)
    torch.testing.assert_close(student.image(eps), teacher.image(eps), atol=1e-4, rtol=0)


def test_a_correction_makes_its_student_one_of_one_call(tmp_path):
    words = {"steps": 2, "batch_size": 4, "watch_every": 0, "sample_every": 0, "fake_warmup": 1}
    kind = find_method("consistency+dm").settings
    student = distill(
        "digits", tmp_path, kind(**words, consistency={"steps": 1, "pairs": 4, "pair_steps": 2}), "consistency+dm"
    )
    assert (student.calls, student.any_calls) == (1, False)
    with pytest.raises(BootdiffError, match="tract ends with a student of 2 calls, and what follows goes on from"):
        find_method("tract+dm").settings(**words, tract={"phases": [4, 2]})


def test_what_holds_the_start_of_a_path_is_said_by_the_settings():
    assert BootSettings().anchored and not BootSettings(boundary_weight=0).anchored
    assert not settings("direct").anchored
    assert find_method("dm").settings().anchored and not find_method("dm").settings(boot_weight=0).anchored


def test_a_run_without_a_teacher_says_why_nobody_looked_and_that_it_diverged(tmp_path):
    words = {key: value for key, value in FAST.items() if not key.startswith("pair")} | {"images": "digits"}
    kind = find_method("consistency-training").settings
    distill("digits", tmp_path / "calm", kind(**words), "consistency-training")
    assert verdict_of(tmp_path / "calm").sentence.startswith("its method asks no teacher")
    wild = kind(**{**words, "learning_rate": 1.0, "steps": 8, "ema_decay": 0, "start_from": "teacher"})
    distill("digits", tmp_path / "wild", wild, "consistency-training")
    assert verdict_of(tmp_path / "wild").word == "unstable"


def test_a_jump_student_of_a_plain_network_is_told_both_times():
    student = JumpStudent.from_teacher(Gaussian(0.5, 0.5, (2,)))
    torch.nn.init.normal_(student.network.last.weight)
    x, s = torch.ones(1, 2), torch.tensor([0.1])
    answers = [student(x, torch.tensor([t]), s) for t in (0.5, 0.9)]
    raw = [student.network(x, student.schedule.timestep(torch.tensor([t])), s, {}) for t in (0.5, 0.9)]
    assert not torch.equal(*raw) and not torch.equal(*answers)


def test_a_jump_student_as_a_teacher_answers_on_its_grid_only():
    student = JumpStudent.from_teacher(load_teacher("digits"))
    teacher = student.as_teacher([student.t_max, 0.5, student.t_min])
    x = torch.zeros(1, *student.shape)
    teacher.x0(x, torch.tensor([0.5]))
    with pytest.raises(BootdiffError, match="answers at the times of its grid only"):
        teacher.x0(x, torch.tensor([0.6]))


def test_a_trajectory_counts_as_many_evaluations_as_it_has_times():
    student = TrajectoryStudent.from_teacher(load_teacher("digits"))
    assert student.evaluations == evaluations_of(student_sampler(student).sample) == 8


def test_a_checkpointed_transformer_of_a_trajectory_knows_its_times_in_the_backward_pass(tmp_path):
    import tiny_pipelines

    student = TrajectoryStudent.from_teacher(load_teacher(str(tiny_pipelines.save_dit(tmp_path / "dit"))))
    condition = student.adapter.blank(1).add(classes=torch.tensor([1]))
    eps = sample_noise(0, 0, 1, student.shape)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            student.network.network.enable_gradient_checkpointing()
        student.eval().zero_grad()  # in training mode DiT leaves classes out by chance
        student(eps, None, condition).square().mean().backward()
        gradients.append([p.grad.clone() for p in student.network.mixing.parameters()])
    assert any(bool(g.abs().sum() > 0) for g in gradients[0])
    torch.testing.assert_close(*gradients)
