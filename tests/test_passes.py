"""Passes are counted while a run trains: hand-computed numbers, which nothing about the way of training changes."""

from __future__ import annotations

import json
import subprocess
import threading
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

from bootdiff.config.mixins import STORED
from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError, Interrupted
from bootdiff.core.passes import PassCounter, counting, operations
from bootdiff.distillation.distill import distill
from bootdiff.distillation.plan import plan_distillation
from bootdiff.methods.base import Learner
from bootdiff.methods.boot import Boot, BootSettings
from bootdiff.methods.registry import METHODS, find_method
from bootdiff.monitoring.watch_plan import WatchPlan
from bootdiff.report.build import build_report
from bootdiff.schedules import Cosine
from bootdiff.storage.passes import passes_in_words, trained_passes
from bootdiff.students import PathStudent
from bootdiff.students.plain import PlainNetwork
from bootdiff.teachers import CallableTeacher, Gaussian, guided, load_teacher
from bootdiff.teaching.settings import TeacherSettings
from bootdiff.teaching.teach import train_teacher
from bootdiff.training.accelerator import make_accelerator
from bootdiff.training.checkpoint import latest_checkpoint
from bootdiff.training.loop import Loop
from bootdiff.training.passes import RunPasses, counter_of
from bootdiff.training.planned import passes_a_step, planned_passes
from toys import TRIED, command, same

B = 8
OPTIONS = ["--steps", "6", "--batch-size", str(B), "--set", "sample_every=0", "--set", "log_every=2"]


def settings(method: str = "boot", **fields):
    usual = {"steps": 6, "batch_size": B, "watch_every": 0, "sample_every": 0, "log_every": 2, "t_min": 0.02}
    return find_method(method).settings(**{**usual, "t_max": 0.9, **fields})


class Network(nn.Module):
    """A network that takes any condition; ``width`` makes it larger or smaller."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.SiLU(), nn.Linear(width, 4))

    def forward(self, x, timestep, **condition):
        return self.layers(x)


def plain() -> CallableTeacher:
    torch.manual_seed(0)
    return CallableTeacher(Network(), Cosine(), "sample", (4,))


def done(run: Path) -> dict:
    return json.loads((run / "done.json").read_text())["passes"]


def log(run: Path) -> list[dict]:
    return [{**json.loads(line), "seconds": None} for line in (run / "log.jsonl").read_text().splitlines()]


def told(**passes: float) -> dict[str, float]:
    return {**passes, "all": sum(passes.values())}


# What a step costs, by hand


@pytest.mark.parametrize("every, boundaries", [(1, 6), (4, 2), (100, 1)])
@pytest.mark.parametrize("solver, calls", [("euler", 1), ("heun", 2)])
def test_boot_of_a_pipeline(tiny, tmp_path, solver, calls, every, boundaries):
    """A step is y_t (1), the teacher's answers (1 or 2), y_s and back (3); a boundary adds f_T (1) and y_T (3)."""
    run, times = tmp_path / "run", {"t_min": None, "t_max": None}
    distill(str(tiny), run, settings(solver=solver, boundary_every=every, **times))
    expected = told(teacher=B * (6 * calls + boundaries), student=B * (6 * 4 + boundaries * 3))
    assert done(run) == expected == log(run)[-1]["passes"]
    assert log(run)[0]["passes"]["student"] == B * (8 + 3 * (2 if every == 1 else 1))


def test_guidance_by_a_second_answer_counts_two(tmp_path):
    distill(guided(plain(), Condition(), 2.0), tmp_path / "run", settings(boundary_every=4))
    assert done(tmp_path / "run") == told(teacher=2 * B * (6 + 2), student=B * (24 + 6))


def test_an_analytic_teacher_counts_its_answers(tmp_path):
    teacher = Gaussian(0.0, 0.5, (1, 2, 2), Cosine())
    distill(teacher, tmp_path / "run", settings(boundary_every=4, solver="heun"))
    assert done(tmp_path / "run") == told(teacher=B * (12 + 2), student=B * (24 + 6))
    assert "x0" not in vars(teacher)


@pytest.mark.parametrize("rank", [0, 2])
def test_two_stages_with_a_fake_that_learns_first(tmp_path, rank):
    """A fake's turn: a sample (1), the fake and back (3). The student's: a sample and back (3), teacher, fake, BOOT."""
    asked = settings("boot+dm", fake_warmup=2, fake_updates=3, fake_rank=rank, boot={"steps": 4})
    distill(plain(), tmp_path / "run", asked, "boot+dm")
    first = told(teacher=B * (4 + 1), student=B * (16 + 3))
    last = told(teacher=B * 4 * (1 + 1) + B, student=B * (18 + 4 * (3 + 4) + 3), fake=B * (18 * 3 + 4))
    assert done(tmp_path / "run/boot") == first and done(tmp_path / "run") == last
    both = {name: first.get(name, 0) + value for name, value in last.items()}
    assert trained_passes(tmp_path / "run") == {**both, "stages": {"boot": first, "dm": last}}


def test_a_smaller_network_counts_by_its_multiply_adds(tmp_path):
    """The student's network is another one than the teacher's, so that only its multiply-adds compare them."""
    torch.manual_seed(0)
    teacher = CallableTeacher(Network(1024), Cosine(), "sample", (4,))
    network = PlainNetwork((4,), (20.0, 900.0), width=8, depth=2)
    student = PathStudent(network, teacher, 0.02, 0.9)
    own, its = (4 + 16) * 8 + 2 * 8 * 8 + 8 * 4, 2 * 4 * 1024
    asked = settings(boundary_weight=0)
    loop = Loop(
        Boot(teacher, Learner(student, 1e-3), boundary_weight=0), asked, tmp_path, make_accelerator(asked, tmp_path)
    )
    loop.run(show_progress=False)
    passes = loop.passes.totals()
    assert passes["teacher"] == 6 * B and passes["student"] == pytest.approx(6 * B * 4 * own / its, abs=1e-3)


def test_a_network_that_cannot_be_measured_without_values_is_run_once_more():
    class Choosy(Network):
        def forward(self, x, timestep, **condition):
            return super().forward(nn.functional.dropout(x) if x.sum().item() > -1e9 else x, timestep)

    network, before = Choosy(), torch.get_rng_state()
    assert operations(network, (torch.ones(3, 4), torch.ones(3)), {}) == 2 * 3 * 2 * 4 * 16
    assert torch.equal(torch.get_rng_state(), before)


def test_a_perceptual_distance_is_counted_too(tiny, tmp_path):
    distill(str(tiny), tmp_path / "run", settings(steps=1, distance="digits", t_min=None, t_max=None))
    passes = done(tmp_path / "run")
    assert set(passes) == {"teacher", "student", "perceptual", "all"} and passes["perceptual"] > 0


@pytest.mark.parametrize("how", ["beside", "shared"])
def test_a_teacher_and_its_student_in_training(how, tmp_path):
    """The teacher's turn is one pass and back (3); BOOT's is as ever, at every 4th step with a boundary."""
    tiny = {"steps": 5, "batch_size": B, "channels": [32, 32], "sample_every": 0, "log_every": 5, "with_student": how}
    train_teacher("digits", tmp_path / "run", TeacherSettings(kind="unconditional", **tiny))
    teacher, student = B * (5 * 4 + 2), B * (5 * 4 + 2 * 3)
    expected = told(teacher=teacher, student=student) if how == "beside" else told(student=teacher + student)
    assert log(tmp_path / "run")[-1]["passes"] == expected


def test_a_text_encoder_in_training_counts_by_its_multiply_adds(tmp_path):
    tiny = {"steps": 2, "batch_size": B, "channels": [32, 32], "sample_every": 0, "text_width": 32, "text_layers": 1}
    train_teacher("digits", tmp_path / "run", TeacherSettings(kind="if", **tiny))
    passes = log(tmp_path / "run")[-1]["passes"]
    assert passes["teacher"] == 2 * 3 * B and 0 < passes["t5encodermodel"] < passes["teacher"]


# What changes nothing


def test_a_resumed_run_has_the_log_of_an_undisturbed_one(tmp_path, monkeypatch):
    """Interrupted between two lines of the log, with passes that are no whole numbers."""
    original = Loop._report

    def interrupt(self, bar):
        self.stop_signal = 2 if self.step == 3 else None
        original(self, bar)

    fields = {"checkpoint_every": 5, "fake_warmup": 1, "steps": 6}
    distill(plain(), tmp_path / "whole", settings("dm", **fields), "dm")
    monkeypatch.setattr(Loop, "_report", interrupt)
    with pytest.raises(Interrupted):
        distill(plain(), tmp_path / "cut", settings("dm", **fields), "dm")
    monkeypatch.setattr(Loop, "_report", original)
    distill(plain(), tmp_path / "cut", settings("dm", **fields), "dm")
    assert log(tmp_path / "cut") == log(tmp_path / "whole") and done(tmp_path / "cut") == done(tmp_path / "whole")


def test_totals_are_exact_whatever_a_pass_counts():
    """So that their sum does not depend on where a run was cut, nor on how many processes counted."""

    def after(before: float, calls: int) -> float:
        counter = PassCounter(big)
        counter.add("teacher", big)
        counter.add("student", small, measured=True)
        passes = RunPasses(counter)
        passes.restore({"student": before})
        with counter.attached(), counting(), torch.no_grad():
            for module in (big, *[small] * calls):
                module(torch.ones(7, 4), torch.ones(7))
        return passes.state()["student"]

    big, small = Network(37), Network(3)
    assert after(after(0.0, 999), 1) == after(after(0.0, 1), 999) == after(0.0, 1000)
    assert after(0.0, 1) == pytest.approx(7 * 3 / 37, abs=1e-4)


@pytest.mark.multi
def test_two_processes_sum_to_one(tiny, tmp_path):
    for number in (1, 2):
        words = command("distill", tiny, "--output", tmp_path / str(number), *OPTIONS, processes=number)
        ran = subprocess.run(words, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr[-2000:]
    assert done(tmp_path / "2") == done(tmp_path / "1") == told(teacher=B * 8, student=B * 30)
    assert [line["passes"] for line in log(tmp_path / "2")] == [line["passes"] for line in log(tmp_path / "1")]


@pytest.mark.parametrize(
    "fields",
    [{"gradient_accumulation": 4}, {"gradient_checkpointing": True}, {"mixed_precision": "bf16"}, {"compile": True}],
    ids=lambda fields: next(iter(fields)),
)
def test_the_way_of_training_changes_no_count(fields, tiny, tmp_path, monkeypatch):
    if "compile" in fields:  # traced and run as it is, where building takes minutes
        compile_by = nn.Module.compile
        monkeypatch.setattr(nn.Module, "compile", lambda self, options: compile_by(self, backend="eager"))
        monkeypatch.setattr("shutil.which", lambda name: name)
    distill(str(tiny), tmp_path / "run", settings(t_min=None, t_max=None, **fields))
    assert done(tmp_path / "run") == told(teacher=B * 8, student=B * 30)


def test_looks_and_previews_are_not_counted_and_counting_changes_no_bit(tiny, tmp_path, monkeypatch):
    ends = {"t_min": None, "t_max": None}
    seen = distill(str(tiny), tmp_path / "seen", settings(watch_every=2, sample_every=2, **ends))
    assert done(tmp_path / "seen") == told(teacher=B * 8, student=B * 30)
    monkeypatch.setattr(RunPasses, "attached", lambda self: nullcontext())
    bare = distill(str(tiny), tmp_path / "bare", settings(**ends))
    assert same(seen.state_dict(), bare.state_dict()) and done(tmp_path / "bare") == {"all": 0}
    assert all(not part._forward_hooks for part in load_teacher(str(tiny)).denoiser.network.modules())


def test_hooks_are_gone_after_the_run_and_after_an_error(tmp_path):
    teacher, asked = plain(), settings(steps=2)
    objective = Boot.from_settings(teacher, asked)
    loop = Loop(objective, asked, tmp_path, make_accelerator(asked, tmp_path))
    loop._turn = lambda *turn: 1 / 0
    with pytest.raises(ZeroDivisionError):
        loop.run(show_progress=False)
    assert not teacher.network._forward_hooks and not teacher.network._forward_pre_hooks


# Where passes are counted, and under which name


def test_only_what_is_asked_for_is_counted_and_in_this_thread_only():
    teacher, x, t = plain(), torch.ones(3, 4), torch.full((3,), 0.5)
    counter = PassCounter(teacher.network)
    counter.add("teacher", teacher.network)

    def ask() -> None:
        teacher.x0(x, t)

    with counter.attached():
        ask()
        assert counter.counted() == {}
        with counting():
            ask()
            other = threading.Thread(target=ask)
            other.start()
            other.join()
            with counting("pairs"):
                ask()
                ask()
            ask()
    with counting():
        ask()
    assert counter.counted() == {"teacher": 6, "pairs": 6}


def test_a_gradient_is_counted_once_when_it_arrives():
    """Whatever the output was used for; an answer whose gradient nobody asks for costs one pass."""
    network, x = Network(), torch.ones(3, 4)
    counter = PassCounter(network)
    counter.add("student", network)
    with counter.attached(), counting():
        out = network(x, None)
        (out.sum() + out.square().sum() + out[:1].sum()).backward()
        assert counter.counted() == {"student": 9}
        network(x, None).sum()
        with torch.no_grad():
            network(x, None)
        assert counter.counted() == {"student": 15}
        torch.utils.checkpoint.checkpoint(network, x.requires_grad_(), None, use_reentrant=False).sum().backward()
    assert counter.counted() == {"student": 24}


def test_a_call_that_fails_counts_nothing_and_leaves_no_trace():
    network = Network()
    counter = PassCounter(network)
    counter.add("student", network)
    with counter.attached(), counting():
        with pytest.raises(RuntimeError):
            network(torch.ones(3, 5), None)
        network(torch.ones(2, 4), None)
    assert counter.counted() == {"student": 2}


# Before a run


def test_an_average_that_a_loss_calls_counts_in_a_plan_and_in_a_run(monkeypatch, tmp_path):
    monkeypatch.setitem(METHODS, "toy-average", "toy_denoising:ToyAverage")
    asked = settings("toy-average", steps=3, pairs=20, pair_steps=4)
    distill(plain(), tmp_path / "run", asked, "toy-average")
    passes = trained_passes(tmp_path / "run")
    assert planned_passes(asked) == passes and passes["student"] == 3 * B * (3 + 1)


@pytest.mark.parametrize("answers", [1, 2])
@pytest.mark.parametrize("method", TRIED)
def test_what_is_planned_is_what_is_counted(method, answers, tmp_path):
    fields = find_method(method).settings.model_fields
    stored = {"pairs": 20, "pair_steps": 4}
    own = {"fake_warmup": 2, "fake_updates": 2, "boundary_every": 3, **stored}
    own = {key: value for key, value in own.items() if key in fields}
    if find_method(method).sources[0] not in STORED:  # a correction may take pairs, and usually does not
        own = {key: value for key, value in own.items() if key not in stored}
    if "+" in method:
        first = find_method(method.split("+")[0])
        own |= {first.name: {"steps": 3, **(stored if first.sources[0] in STORED else {})}}
    asked = settings(method, steps=7, **own)
    teacher = guided(plain(), Condition(), 2.0) if answers == 2 else plain()
    plan = plan_distillation(teacher, tmp_path / "run", asked, method)
    distill(teacher, tmp_path / "run", asked, method)
    passes = trained_passes(tmp_path / "run")
    passes.pop("stages", None)
    assert planned_passes(plan.settings, answers) == passes


@pytest.mark.parametrize(
    "method, counted, declared", [("boot", 6, 6), ("dm", 23, 23), ("sid", 27, 23), ("freeflow", 18, 17)]
)
def test_what_is_declared_for_looks_is_nearly_what_a_usual_step_costs(method, counted, declared):
    """The looks of runs that are there rest on the declared numbers, which leave out SiD's way back through both."""
    own = {} if method == "boot" else {"fake_warmup": 0}
    asked = find_method(method).settings(steps=8, batch_size=16, **own)
    assert passes_a_step(asked) == counted and asked.passes == declared


@pytest.mark.parametrize(
    "method, plans",
    [
        ("boot", [(512, 125), (64, 83), (128, 58)]),
        ("dm", [(512, 16), (512, 86), (512, 31)]),
        ("sid", [(512, 16), (512, 86), (512, 31)]),
        ("freeflow", [(512, 25), (256, 83), (512, 58)]),
        ("boot+dm", [(512, 16), (512, 86), (512, 31)]),
    ],
)
def test_looks_are_planned_as_ever(method, plans):
    kinds = ({}, {"steps": 2000, "batch_size": 32, "guidance_scale": 2.0}, {"steps": 700, "batch_size": 64})
    for fields, plan in zip(kinds, plans, strict=True):
        assert WatchPlan.of(find_method(method).settings(**fields), (1, 8, 8)) == WatchPlan(*plan)


def test_a_dry_run_tells_the_passes(cli, tiny, tmp_path):
    ran = cli("distill", tiny, "--output", tmp_path / "run", *OPTIONS, "--dry-run")
    assert ran.code == 0 and f"passes: {B * 38} (teacher {B * 8}, student {B * 30})" in ran.out


def test_planning_leaves_the_random_numbers_alone():
    before = torch.get_rng_state()
    planned_passes(settings("dm", fake_warmup=0), 2)
    assert torch.equal(torch.get_rng_state(), before)


# Where they are told


def test_the_card_the_report_and_the_tables_tell_them(cli, tiny, tmp_path):
    run = tmp_path / "run"
    distill(str(tiny), run, settings(t_min=None, t_max=None))
    row = f"| passes of its training | {B * 38} (teacher {B * 8}, student {B * 30}) |"
    assert row in (run / "student/README.md").read_text()
    ran = cli("evaluate", run, "--num", 8, "--output", tmp_path / "table.json", "--calls", 1)
    assert ran.code == 0, ran.err
    assert json.loads((tmp_path / "table.json").read_text())["passes"] == done(run)
    assert row in (run / "student/README.md").read_text()
    assert f"{B * 38} (teacher {B * 8}, student {B * 30}) network passes." in build_report(run).read_text()


def test_two_stages_are_told_apart_in_words():
    stages = {"boot": {"teacher": 1000, "all": 1000}, "dm": {"teacher": 500, "all": 500}}
    words = passes_in_words({"teacher": 1500, "all": 1500, "stages": stages})
    assert words == "1,500 (teacher 1,500; boot 1,000, then dm 500)"


def test_a_run_of_an_earlier_version_goes_on_and_tells_nothing(tmp_path, monkeypatch):
    original = Loop._report

    def interrupt(self, bar):
        self.stop_signal = 2 if self.step == 3 else None
        original(self, bar)

    run = tmp_path / "run"
    monkeypatch.setattr(Loop, "_report", interrupt)
    with pytest.raises(Interrupted):
        distill(plain(), run, settings())
    monkeypatch.setattr(Loop, "_report", original)
    path = latest_checkpoint(run / "checkpoints") / "state.json"
    state = json.loads(path.read_text())
    for damaged in ("x", {"teacher": -1}, {"teacher": "many"}, [1]):
        path.write_text(json.dumps({**state, "passes": damaged}))
        with pytest.raises(BootdiffError, match=r"step-00000003 is damaged \(.*\); remove that folder"):
            distill(plain(), run, settings())
    del state["passes"]
    path.write_text(json.dumps(state))
    distill(plain(), run, settings())
    assert "passes" not in log(run)[-1] and trained_passes(run) is None


def test_names_are_those_of_the_networks(tiny):
    objective = Boot.from_settings(load_teacher(str(tiny)), BootSettings(distance="digits"))
    assert counter_of(objective).names == ["teacher", "student", "perceptual"]
