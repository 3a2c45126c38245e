"""What goes wrong, or is done otherwise than asked, is told: in one line, on the terminal, and nothing is swallowed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bootdiff.builtin import DIGITS
from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError, Interrupted
from bootdiff.core.randomness import sample_noise
from bootdiff.evaluation import references
from bootdiff.samplers.stock import candidates
from bootdiff.schedules import Cosine
from bootdiff.system.out_of_memory import is_out_of_memory, told_when_out_of_memory
from bootdiff.teachers import Mixture, load_teacher
from bootdiff.teachers.encoding import PromptEncoder
from bootdiff.training.loop import Loop
from tiny_pipelines import save_sd
from toys import command

SMALL = ["--steps", "2", "--batch-size", "8", "--set", "sample_every=0"]


def too_much(*_, **__) -> torch.Tensor:
    """Ask the allocator for more than any machine has: its own words, at once."""
    return torch.empty(2**50, dtype=torch.uint8)


def too_much_for_a_gpu(*_, **__) -> torch.Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of …")


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    from bootdiff.distillation.distill import distill
    from bootdiff.methods.boot import BootSettings

    folder = tmp_path_factory.mktemp("told") / "run"
    distill(str(tiny), folder, BootSettings(steps=2, batch_size=8, sample_every=0))
    return folder


def one_line(done, *words: str) -> str:
    """The error, and nothing that a traceback would leave."""
    assert done.code == 2, done.err
    lines = [line for line in done.err.splitlines() if line.startswith("bootdiff: error: ")]
    assert len(lines) == 1 and len(lines[0]) <= 300 and "Traceback" not in done.err, done.err
    for word in words:
        assert word in lines[0], lines[0]
    return lines[0]


def test_memory_that_runs_out_in_training_names_the_setting_to_lower(cli, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(Loop, "_turn", too_much)
    done = cli("distill", tiny, "--output", tmp_path / "run", *SMALL)
    one_line(done, "out of memory (1.05e+06 GiB more were asked for)", "batch_size (now 8)", "gradient_accumulation")


def test_so_it_does_on_a_gpu(cli, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(Loop, "_turn", too_much_for_a_gpu)
    done = cli("distill", tiny, "--output", tmp_path / "run", *SMALL)
    one_line(done, "out of memory (2.50 GiB more were asked for)", "batch_size (now 8)")
    done = cli("train-teacher", "digits", "--output", tmp_path / "teacher", *SMALL)
    one_line(done, "out of memory (2.50 GiB", "batch_size (now 8)")


def test_memory_that_runs_out_in_sampling_and_evaluating(cli, run, tmp_path, monkeypatch):
    from bootdiff.students import Student

    monkeypatch.setattr(Student, "sample", too_much)
    done = cli("sample", run, "--output", tmp_path / "grid.png", "--num", 12, "--batch-size", 4)
    one_line(done, "out of memory", "--batch-size (it draws 4 at a time)", "--num (now 12)")
    assert not (tmp_path / "grid.png").exists()
    done = cli("evaluate", run, "--num", 8, "--calls", "1", "--output", tmp_path / "e.json")
    one_line(done, "out of memory", "--num")


def test_memory_that_runs_out_is_no_damaged_file(cli, tmp_path, run, tiny, monkeypatch):
    """Wherever any error of a library means a damaged file, this one does not."""
    folder = save_sd(tmp_path / "sd")
    with monkeypatch.context() as patch:
        patch.setattr("diffusers.UNet2DModel.from_pretrained", too_much)
        line = one_line(cli("inspect", tiny), "out of memory")
        assert "save them anew" not in line
    teacher = load_teacher(str(folder))
    encoder = PromptEncoder(teacher.denoiser.adapter)
    with monkeypatch.context() as patch:
        patch.setattr(type(teacher.denoiser.adapter), "encode", too_much)
        with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
            encoder(["a"])
    with monkeypatch.context() as patch:
        patch.setattr("bootdiff.training.saved_state.load_checkpoint", too_much)
        again = tmp_path / "again"
        cli("distill", tiny, "--output", again, *SMALL)
        (again / "done.json").unlink()
        assert "damaged" not in one_line(cli("distill", tiny, "--output", again, *SMALL), "out of memory")


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (MemoryError(), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("shape '[2, 3]' is invalid for input of size 5"), False),
        (OSError(28, "No space left on device"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_a_want_of_memory_is(error, is_one):
    assert is_out_of_memory(error) is is_one
    with pytest.raises(BootdiffError if is_one else type(error)), told_when_out_of_memory("lower it"):
        raise error


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory are Linux's")
def test_under_a_real_limit_of_memory(tiny, tmp_path):
    words = command("distill", tiny, "--output", tmp_path / "run", "--steps", 1, "--batch-size", 50000)
    done = subprocess.run(["bash", "-c", 'ulimit -v 5000000; exec "$@"', "-", *words], capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "out of memory (" in done.stderr and "lower batch_size (now 50000)" in done.stderr


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("0", False), ("", False)])
def test_tracebacks_are_shown_to_who_asks_for_them(cli, tmp_path, monkeypatch, value, shown):
    monkeypatch.setenv("BOOTDIFF_DEBUG", value)
    (tmp_path / "model_index.json").write_text("{")
    done = cli("inspect", tmp_path)
    assert done.code == 2 and done.err.splitlines()[-1].startswith("bootdiff: error: ")
    assert ("Traceback (most recent call last)" in done.err) is shown
    assert ("JSONDecodeError" in done.err) is shown, "the first cause is not shown"


def test_the_help_names_what_the_environment_says(cli):
    words = " ".join(cli("--help").out.split())
    assert "BOOTDIFF_DEBUG=1" in words and "BOOTDIFF_PROCESS_TIMEOUT" in words


def test_no_handler_of_errors_takes_an_interruption_for_one(cli, tiny, tmp_path, monkeypatch):
    """Not even the one that lets a finished run end well whatever becomes of its report."""
    assert not issubclass(Interrupted, Exception)

    def stop(*_):
        raise Interrupted("stopped at once.")

    monkeypatch.setattr("bootdiff.cli.distill.build_report", stop)
    done = cli("distill", tiny, "--output", tmp_path / "run", *SMALL)
    assert done.code == 130 and done.err.splitlines()[-1] == "bootdiff: stopped at once."


def test_a_key_that_is_pressed_while_a_file_is_read_is_no_damaged_file(tiny, monkeypatch):
    def press(*_, **__):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("diffusers.UNet2DModel.from_pretrained", press)
    with pytest.raises(KeyboardInterrupt):
        load_teacher(str(tiny))


def test_figures_that_are_left_out_are_noted_on_the_terminal_and_in_the_file(cli, tmp_path, monkeypatch):
    """Without scikit-learn there are no digits to compare with, but their statistics are shipped."""
    from bootdiff.distillation.distill import distill
    from bootdiff.methods.boot import BootSettings

    distill("digits", tmp_path / "run", BootSettings(steps=1, batch_size=8, sample_every=0))

    def missing(*_):
        raise BootdiffError("the digits need scikit-learn; install it with pip.")

    monkeypatch.setattr(references, "_gather", missing)
    words = ["--num", 20, "--calls", "1", "--reference", DIGITS, "--output", tmp_path / "e.json"]
    done = cli("evaluate", tmp_path / "run", *words)
    assert done.code == 0, done.err
    expected = "KID, precision and recall are left out: the digits need scikit-learn"
    assert f"bootdiff: note: the digits themselves cannot be had, so {expected}" in done.err
    notes = json.loads((tmp_path / "e.json").read_text())["notes"]
    assert sum(expected in line for line in notes) == 1


def test_prompts_that_are_encoded_again_are_noted(cli, tmp_path):
    teacher, prompts = save_sd(tmp_path / "sd"), tmp_path / "prompts.txt"
    prompts.write_text("a\nb\n")
    words = ["distill", teacher, "--output", tmp_path / "run", "--prompts", prompts, *SMALL]
    assert cli(*words).code == 0
    (tmp_path / "run/done.json").unlink()
    damaged = next((tmp_path / "run/prompts").glob("*.json"))
    damaged.write_text("{}")
    done = cli(*words)
    assert done.code == 0, done.err
    assert done.err.count("bootdiff: note: the prompts are encoded again: ") == 1


def test_looks_that_compare_values_because_features_overflow_say_so(cli, tiny, tmp_path, monkeypatch):
    from bootdiff.teachers.features import TeacherFeatures

    read = TeacherFeatures.read
    monkeypatch.setattr(TeacherFeatures, "read", lambda *asked: read(*asked) * torch.inf)
    done = cli("distill", tiny, "--output", tmp_path / "run", *SMALL, "--set", "watch_every=1")
    assert done.code == 0, done.err
    assert done.err.count("looks compare the samples' values instead") == 1
    looks = [json.loads(line) for line in (tmp_path / "run/watch.jsonl").read_text().splitlines()]
    assert looks and all("compare the samples' values" in look["note"] for look in looks)


def test_a_window_of_the_log_without_a_turn_is_a_line_without_a_loss(tiny, tmp_path, monkeypatch):
    """As where a step only makes pairs of noises and images."""
    from bootdiff.distillation.distill import distill
    from bootdiff.methods.boot import Boot, BootSettings

    monkeypatch.setattr(Boot, "turns", lambda self, step: () if step in (1, 2) else ("student",), raising=False)
    distill(str(tiny), tmp_path / "run", BootSettings(steps=4, batch_size=8, sample_every=0, log_every=1))
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [line["loss"] is None for line in lines] == [False, True, True, False]
    assert Path(tmp_path / "run/student").is_dir()


def test_a_stock_sampler_that_visits_every_timestep_of_a_continuous_schedule_stays_finite():
    """At timestep 0 such a schedule has no noise at all, by which nothing can be divided."""
    teacher = Mixture(torch.tensor([[1.0, 0.0], [-1.0, 0.5]]), 0.1, Cosine())
    candidate = candidates(teacher, "ddim", teacher.schedule.num_timesteps)[0]
    made = candidate.sample(sample_noise(0, 0, 64, (2,)), Condition())
    assert bool(torch.isfinite(made).all())
    # At its two means, to the width of the mixture.
    assert float(torch.cdist(made, teacher.means.float()).min(dim=1).values.mean()) < 0.3


def test_a_progress_line_names_a_time_left_only_where_one_is_known(monkeypatch, capsys):
    from bootdiff.system import progress as module

    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with module.progress("training", 10) as outer:
        now[0] += 100.0  # nothing is done yet: there is no rate
        outer.advance(0)
        with module.progress("making", 8, done=4) as inner:
            now[0] += 20.0
            inner.advance(2)
        now[0] += 20.0
        outer.advance(2)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["training: 0/10", "making: 6/8, 0.1/s, 0:20 left", "training: 2/10, 0.0167/s, 8:00 left"]
