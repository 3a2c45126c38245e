"""Runs: resumed, split, spread over processes, and stopped, they end with the same student."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from bootdiff.config.settings import TrainingSettings
from bootdiff.core.errors import BootdiffError, Interrupted, NonFiniteLossError
from bootdiff.data.sources import Noise
from bootdiff.distillation.distill import distill
from bootdiff.methods import Learner, Loss, Stateless
from bootdiff.methods.base import Rising, Steady, sampled
from bootdiff.methods.boot import BootSettings
from bootdiff.schedules import Cosine
from bootdiff.teachers import CallableTeacher
from bootdiff.training.accelerator import make_accelerator
from bootdiff.training.averages import Average
from bootdiff.training.checkpoint import latest_checkpoint, save_checkpoint
from bootdiff.training.learner_state import rate_factor
from bootdiff.training.log import Meter
from bootdiff.training.loop import Loop
from toys import TELLING, close, command, same

WEIGHTS = Path("student-path/unet/diffusion_pytorch_model.safetensors")
OPTIONS = ["--steps", "12", "--batch-size", "16", "--set", "learning_rate=1e-3", "--set", "checkpoint_every=3"]
OPTIONS += ["--set", "loss_weight=signal", "--set", "ema_decay=0.9", "--set", "sample_every=0", "--set", "log_every=1"]


def settings(**fields) -> BootSettings:
    base = {"steps": 12, "batch_size": 16, "learning_rate": 1e-3, "checkpoint_every": 3, "loss_weight": "signal"}
    return BootSettings(**{**base, "ema_decay": 0.9, "sample_every": 0, "log_every": 1, **fields})


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / WEIGHTS)


@pytest.fixture(scope="session")
def start(tiny) -> dict[str, torch.Tensor]:
    """The weights that every run starts from and has in common: the teacher's."""
    return load_file(tiny / "unet" / "diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="session")
def undisturbed(tiny, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    distill(str(tiny), run, settings())
    return run


def test_two_runs_of_one_command_are_bitwise_equal(tiny, tmp_path, undisturbed):
    distill(str(tiny), tmp_path / "again", settings())
    assert same(weights(tmp_path / "again"), weights(undisturbed))


def test_a_killed_run_resumes_to_the_same_bits(cli, tiny, tmp_path, undisturbed):
    """kill -9 as soon as a checkpoint past the first is there, then the same command."""
    run = tmp_path / "killed"
    words = ["distill", tiny, "--output", run, *OPTIONS]
    telling = [sys.executable, "-c", TELLING, *map(str, words)]
    with subprocess.Popen(telling, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        seen = iter(process.stdout.readline, "checkpoint 6\n")  # each waits for a line; "" is the end
        assert "" not in seen, "the run ended before its second checkpoint"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    (run / "checkpoints" / f".step-00000099.{process.pid}.tmp").mkdir()  # what a kill within a write leaves behind
    done = cli(*words)
    assert done.code == 0, done.err
    assert not list(run.rglob(".*"))
    assert same(weights(run), weights(undisturbed))
    steps = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 13))


def test_interruption_saves_and_the_same_call_resumes(tiny, tmp_path, undisturbed, monkeypatch):
    run, original = tmp_path / "interrupted", Loop._report

    def interrupt(self, bar):
        if self.step == 5:
            os.kill(os.getpid(), signal.SIGINT)
        original(self, bar)

    monkeypatch.setattr(Loop, "_report", interrupt)
    with pytest.raises(Interrupted, match="stopped at step 5 of 12; run the same command"):
        distill(str(tiny), run, settings())
    monkeypatch.setattr(Loop, "_report", original)
    assert latest_checkpoint(run / "checkpoints").name == "step-00000005"
    distill(str(tiny), run, settings())
    assert same(weights(run), weights(undisturbed))


def test_a_damaged_checkpoint_is_one_line_that_says_how_to_go_on(tiny, tmp_path, undisturbed, monkeypatch):
    """Cut short, or without a file: the folder and what follows are named; removed, the run goes on before it."""
    run, original = tmp_path / "damaged", Loop._report

    def interrupt(self, bar):
        if self.step == 7:
            self.stop_signal = 2
        original(self, bar)

    monkeypatch.setattr(Loop, "_report", interrupt)
    with pytest.raises(Interrupted):
        distill(str(tiny), run, settings())
    monkeypatch.setattr(Loop, "_report", original)
    newest, before = sorted((run / "checkpoints").iterdir(), reverse=True)
    file = newest / "student.optimiser.safetensors"
    file.write_bytes(file.read_bytes()[:40])
    expected = rf"step-00000007 is damaged \(.*; remove that folder to resume from {before.name}\.$"
    with pytest.raises(BootdiffError, match=expected):
        distill(str(tiny), run, settings())
    file.unlink()
    with pytest.raises(BootdiffError, match=expected):
        distill(str(tiny), run, settings())
    shutil.rmtree(before)
    with pytest.raises(BootdiffError, match="remove that folder to start anew"):
        distill(str(tiny), run, settings())
    shutil.rmtree(newest)
    distill(str(tiny), run, settings())
    assert same(weights(run), weights(undisturbed))


def test_accumulation_gives_the_same_student_to_rounding(tiny, tmp_path, undisturbed, start):
    distill(str(tiny), tmp_path / "split", settings(gradient_accumulation=4))
    close(weights(tmp_path / "split"), weights(undisturbed), start)


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_run_learns_what_an_eager_one_learns(backend, tiny, tmp_path, start, monkeypatch):
    """Gradients, not only outputs: a compiler has given some convolutions none at all."""
    if backend == "eager":  # traced and run as it is, where building takes minutes
        compile_by = torch.nn.Module.compile
        monkeypatch.setattr(torch.nn.Module, "compile", lambda self, options: compile_by(self, backend="eager"))
    runs = {}
    for name, compiled in (("eager", False), ("compiled", True)):
        distill(str(tiny), tmp_path / name, settings(steps=3, compile=compiled, boundary_every=1))
        runs[name] = weights(tmp_path / name)
    close(runs["compiled"], runs["eager"], start, 1e-2)


@pytest.mark.multi
def test_two_processes_give_the_same_student_to_rounding(tiny, tmp_path, undisturbed, start):
    words = command("distill", tiny, "--output", tmp_path / "two", *OPTIONS, processes=2)
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    close(weights(tmp_path / "two"), weights(undisturbed), start)
    assert len((tmp_path / "two" / "log.jsonl").read_text().splitlines()) == 12


def test_the_folder_holds_what_it_should(undisturbed):
    names = {p.name for p in undisturbed.iterdir()}
    assert {"config.yaml", "meta.json", "log.jsonl", "checkpoints", "student", "student-path"} <= names
    kept = sorted(p.name for p in (undisturbed / "checkpoints").iterdir())
    assert kept == ["step-00000009", "step-00000012"]
    assert not [p for p in undisturbed.rglob("*") if p.suffix in {".bin", ".pt", ".pkl", ".pth"}]


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints"
    save_checkpoint(folder, 1, {"student": {"w": torch.ones(2)}}, {}, keep_last=1)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(BootdiffError, match="No space left"):
        save_checkpoint(folder, 2, {"student": {"w": torch.ones(2)}}, {}, keep_last=1)
    assert [p.name for p in folder.iterdir()] == ["step-00000001"]


class Overflowing(torch.nn.Module):
    """A network that gives no number at early times."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 3)

    def forward(self, x, timestep):
        return self.layer(x) + torch.log(timestep - 500)[:, None]


def test_a_loss_that_is_not_finite_stops_with_its_batch(tmp_path):
    teacher = CallableTeacher(Overflowing(), Cosine(), "sample", (3,))
    with pytest.raises(NonFiniteLossError, match="not finite at step 0") as error:
        distill(teacher, tmp_path / "run", settings(batch_size=32))
    folder = tmp_path / "run" / "failure-step-00000000"
    assert folder.name in str(error.value) and "t from" in str(error.value)
    saved = load_file(folder / "batch-0.safetensors")
    assert saved["noise"].shape == (32, 3) and len(saved["residual.t"]) > 0
    assert not (tmp_path / "run" / "student-path").exists()


def test_of_an_accumulated_step_the_part_that_failed_is_saved(tmp_path):
    """Four parts of eight: only some of them hold a time below 500 steps, where this network gives no number."""
    teacher = CallableTeacher(Overflowing(), Cosine(), "sample", (3,))
    words = settings(batch_size=8, gradient_accumulation=8, t_min=0.45, t_max=0.99, delta=0.01, seed=1)
    with pytest.raises(NonFiniteLossError) as error:
        distill(teacher, tmp_path / "run", words)
    folder = next((tmp_path / "run").glob("failure-*"))
    saved = load_file(folder / "batch-0.safetensors")
    assert folder.name in str(error.value) and saved["noise"].shape == (1, 3)
    assert float(saved["residual.t"].min()) * 999 < 510


def test_a_plain_module_is_distilled_and_kept(tmp_path):
    torch.manual_seed(0)
    teacher = CallableTeacher(Overflowing(), Cosine(), "sample", (3,))
    words = settings(t_min=0.6, t_max=0.95, steps=2)
    student = distill(teacher, tmp_path / "run", words)
    saved = load_file(tmp_path / "run" / "student-path" / "student.safetensors")
    assert same(saved, dict(student.state_dict()))
    assert student.sample(torch.zeros(2, 3)).shape == (2, 3)


@pytest.mark.parametrize("name, middle, last", [("constant", 1.0, 1.0), ("linear", 0.5, 0.1), ("cosine", 0.5, 0.0245)])
def test_rates(name, middle, last):
    words = TrainingSettings(steps=10, lr_schedule=name)
    assert rate_factor(0, words) == 1.0
    assert rate_factor(5, words) == pytest.approx(middle)
    assert rate_factor(9, words) == pytest.approx(last, abs=1e-3)
    warm = TrainingSettings(steps=10, warmup_steps=4, lr_schedule=name)
    assert [rate_factor(i, warm) for i in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_a_finished_run_of_a_plain_module_is_loaded_again(tmp_path):
    torch.manual_seed(0)
    teacher = CallableTeacher(Overflowing(), Cosine(), "sample", (3,))
    words = settings(t_min=0.6, t_max=0.95, steps=2)
    first, again = (distill(teacher, tmp_path / "run", words) for _ in range(2))
    assert same(dict(first.state_dict()), dict(again.state_dict()))


def test_settings_from_python_are_refused_in_one_line():
    with pytest.raises(BootdiffError, match=r"there is no setting 'stepz'. Did you mean 'steps'"):
        BootSettings(stepz=3)
    with pytest.raises(BootdiffError, match=r"setting delta: .*, got 2") as error:
        BootSettings(delta=2)
    assert "\n" not in str(error.value)


def test_an_average_from_the_start_forgets_it_slowly():
    (value,) = parameters = [torch.nn.Parameter(torch.zeros(()))]
    kept, forgotten = Average(parameters, Steady(0.9)), Average(parameters, Rising(0.9))
    with torch.no_grad():
        value.fill_(1.0)
    for average in (kept, forgotten):
        average.step()
        average.step()
    assert float(kept.averages[0]) == pytest.approx(1 - 0.9**2) and float(forgotten.averages[0]) == 1


def test_the_average_is_diffusers_own():
    torch.manual_seed(0)
    net = torch.nn.Linear(4, 4)
    ours, theirs = Average(list(net.parameters()), Rising(0.6)), EMAModel(net.parameters(), decay=0.6)
    for _ in range(12):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter += torch.randn_like(parameter)
        ours.step()
        theirs.step(net.parameters())
    for a, b in zip(ours.averages, theirs.shadow_params, strict=True):
        torch.testing.assert_close(a, b)
    before = [p.clone() for p in net.parameters()]
    ours.swap()
    for p, b in zip(net.parameters(), theirs.shadow_params, strict=True):
        torch.testing.assert_close(p.detach(), b)
    ours.swap()
    assert all(torch.equal(p, b) for p, b in zip(net.parameters(), before, strict=True))


def test_logged_means_are_over_samples_that_are_known():
    words = TrainingSettings()
    meter = Meter(make_accelerator(words, Path()))
    nan = float("nan")
    for total, values in ((1.0, [2.0, nan]), (3.0, [4.0, 6.0])):
        t = torch.tensor([0.05, 0.9])
        terms = [Loss(torch.tensor(total), {"a": torch.tensor(total)}, {"r": (t, torch.tensor(values))})]
        meter.add([*terms, Loss(torch.tensor(0.5), {"b": torch.tensor(0.5)})], 1.0)
    logged = meter.read()
    assert logged["loss"] == 2.5 and logged["a"] == 2.0 and logged["b"] == 0.5
    assert logged["r_by_time"] == [3.0, *[None] * 6, 6.0]


class Duel(Stateless):
    """Two learners that take turns, as in a correction."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.source = Noise((3,))
        self.nets = {name: torch.nn.Linear(3, 3) for name in ("student", "fake")}
        self.seen: list[tuple[int, str]] = []

    def learners(self):
        return {name: Learner(net, 0.1, averages=sampled(0.5)) for name, net in self.nets.items()}

    def frozen(self):
        return ()

    def turns(self, step):
        return ("fake", "fake", "student")

    def losses(self, networks, turn, batch):
        return [lambda: self.distance(networks, turn, batch)]

    def distance(self, networks, turn, batch):
        self.seen.append((turn.step, turn.name))
        other = "fake" if turn.name == "student" else "student"
        assert not any(p.requires_grad for p in networks[other].parameters())
        return Loss((networks[turn.name](batch.noise) - networks[other](batch.noise)).square().mean())


def test_two_learners_take_turns_and_resume_bitwise(tmp_path):
    words = TrainingSettings(steps=6, batch_size=4, checkpoint_every=2, keep_last=9, lr_schedule="linear")
    whole = Duel()
    Loop(whole, words, tmp_path / "a", make_accelerator(words, tmp_path / "a")).run(show_progress=False)
    assert whole.seen[:3] == [(0, "fake"), (0, "fake"), (0, "student")]
    (tmp_path / "b" / "checkpoints").mkdir(parents=True)
    (tmp_path / "a" / "checkpoints" / "step-00000004").rename(tmp_path / "b" / "checkpoints" / "step-00000004")
    resumed = Duel()
    Loop(resumed, words, tmp_path / "b", make_accelerator(words, tmp_path / "b")).run(show_progress=False)
    assert resumed.seen[0] == (4, "fake")
    for name in ("student", "fake"):
        assert same(resumed.nets[name].state_dict(), whole.nets[name].state_dict())


class Follower(Duel):
    """One learner that follows its own average, whose decay is a function of the updates so far."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = {"student": self.nets["student"]}
        self.answers: list[Tensor] = []

    def learners(self):
        averages = {"ema": Rising(0.9), "target": lambda updates: 0.5 if updates < 2 else 1.0}
        return {"student": Learner(self.nets["student"], 0.1, averages=averages)}

    def turns(self, step):
        return ("student",)

    def losses(self, networks, turn, batch):
        target = networks["student@target"]
        assert not any(p.requires_grad for p in target.parameters())
        self.answers.append(target(torch.zeros(1, 3)).detach().clone())
        goal = target(batch.noise) + 1
        return [lambda: Loss((networks["student"](batch.noise) - goal).square().mean())]


def test_a_loss_calls_an_average_whose_decay_is_a_function_of_the_updates(tmp_path):
    words = TrainingSettings(steps=6, batch_size=4, checkpoint_every=4, keep_last=9)
    whole = Follower()
    start = whole.nets["student"](torch.zeros(1, 3)).detach()
    (learner,) = Loop(whole, words, tmp_path / "a", make_accelerator(words, tmp_path / "a")).run(False).values()
    torch.testing.assert_close(whole.answers[0], start)
    assert not torch.allclose(whole.answers[1], start) and not torch.allclose(whole.answers[2], whole.answers[1])
    assert all(torch.equal(answer, whole.answers[2]) for answer in whole.answers[3:])  # a decay of 1 stands still
    assert learner.sampled is learner.averages["ema"] and learner.averages["target"].steps == 6
    torch.testing.assert_close(learner.network("target")(torch.zeros(1, 3)), whole.answers[-1])
    (tmp_path / "b" / "checkpoints").mkdir(parents=True)
    (tmp_path / "a" / "checkpoints" / "step-00000004").rename(tmp_path / "b" / "checkpoints" / "step-00000004")
    resumed = Follower()
    (again,) = Loop(resumed, words, tmp_path / "b", make_accelerator(words, tmp_path / "b")).run(False).values()
    assert same(resumed.nets["student"].state_dict(), whole.nets["student"].state_dict())
    for name, average in learner.averages.items():
        assert all(torch.equal(a, b) for a, b in zip(average.averages, again.averages[name].averages, strict=True))


class Scaled(Duel):
    """A duel with a number of its own to find again."""

    def state_dict(self):
        return {"scale": torch.ones(())}


def four_steps(folder: Path) -> None:
    words = TrainingSettings(steps=4, batch_size=4, checkpoint_every=2, keep_last=5, log_every=4)
    Loop(Scaled(), words, folder, make_accelerator(words, folder)).run(show_progress=False)


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory) -> Path:
    """A run of four steps after its second one."""
    folder = tmp_path_factory.mktemp("two-steps")
    four_steps(folder)
    shutil.rmtree(folder / "checkpoints" / "step-00000004")
    (folder / "log.jsonl").unlink()
    return folder


#: what may become of a tensor
SPOILED = {
    "nan": lambda tensor: tensor + torch.nan,
    "shape": lambda tensor: torch.zeros(2, 5),
    "kind": lambda tensor: tensor.long(),
    "negative": lambda tensor: -1 - tensor,
}
#: and of a number
NO_NUMBER = (None, "x", [], True, -1)
#: (file, the entry's place in it, what becomes of it)
DAMAGES = [
    (file, [name], change)
    for file, name in (
        ("student.weights", "bias"),
        ("student.ema", "1"),
        ("student.optimiser", "0.exp_avg"),
        ("objective", "scale"),
    )
    for change in ("nan", "shape", "kind", "dropped", "added")
]
DAMAGES += [
    ("student.optimiser", [name], change)
    for name in ("0.step", "0.exp_avg_sq")
    for change in ("negative", "nan", "dropped")
]
DAMAGES += [("student.optimiser", ["0."], "all dropped"), ("fake.ema", ["0"], "nan")]
DAMAGES += [("meter", [name], "shape") for name in ("0 turns", "0 totals")]
DAMAGES += [("state", ["step"], value) for value in (*NO_NUMBER, 2.5, 1, 3, 100)]
DAMAGES += [("state", ["seconds"], value) for value in (*NO_NUMBER, float("inf"))]
DAMAGES += [("state", ["scaler"], "x"), *(("state", ["learners"], value) for value in (None, "x", [], {}))]
DAMAGES += [("state", ["learners", "student"], value) for value in (1, "x", [], {})]
DAMAGES += [("state", ["passes", "student"], value) for value in (*NO_NUMBER, float("inf"))]
for count in ("ema_steps", "moments"):
    DAMAGES += [("state", ["learners", "student", count], value) for value in (*NO_NUMBER, 2.5)]
DAMAGES += [("state", ["learners", "student", "moments"], 1)]


def damage(checkpoint: Path, file: str, where: list[str], change: object) -> None:
    if file == "state":
        state = inner = json.loads((checkpoint / "state.json").read_text())
        for key in where[:-1]:
            inner = inner[key]
        inner[where[-1]] = change
        (checkpoint / "state.json").write_text(json.dumps(state))
        return
    path, name = checkpoint / f"{file}.safetensors", where[0]
    tensors = load_file(path)
    if change in SPOILED:
        tensors[name] = SPOILED[change](tensors[name])
    elif change == "added":
        tensors["9.exp_avg"] = torch.zeros(3)
    else:
        tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(name)}
    save_file(tensors, path)


@pytest.mark.parametrize(("file", "where", "change"), DAMAGES)
def test_a_checkpoint_that_cannot_be_is_refused_before_training(file, where, change, two_steps, tmp_path):
    """Whole as files, but holding what no run has written."""
    run = tmp_path / "run"
    shutil.copytree(two_steps, run)
    damage(run / "checkpoints" / "step-00000002", file, where, change)
    cure = r"step-00000002 is damaged \(.*\); remove that folder to start anew\.$"
    with pytest.raises(BootdiffError, match=cure) as told:
        four_steps(run)
    assert len(str(told.value)) <= 300 and "\n" not in str(told.value)
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["step-00000002"] and not (run / "log.jsonl").exists()


def test_a_batch_that_cannot_be_split_is_refused(tiny, tmp_path):
    with pytest.raises(BootdiffError, match="multiple of 3"):
        distill(str(tiny), tmp_path / "run", settings(gradient_accumulation=3))
    assert not (tmp_path / "run").exists()
