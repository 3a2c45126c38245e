"""Several processes hear each other and do what the first one says; a host program keeps what is its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bootdiff.core.errors import BootdiffError
from bootdiff.distillation.distill import distill
from bootdiff.methods.boot import BootSettings
from bootdiff.system import presence
from bootdiff.system.presence import Presence
from bootdiff.system.processes import gathered, told_when_lost, word_of_first
from toys import TELLING, same

WEIGHTS = Path("student-path/unet/diffusion_pytorch_model.safetensors")
OPTIONS = ["--batch-size", "16", "--set", "sample_every=0", "--set", "log_every=1"]

#: the command line, for which one look is enough
SEEING = """
from bootdiff.cli.main import run
from bootdiff.monitoring.watch import Watch

Watch.enough = property(lambda self: bool(self._looks))
"""

#: the same, where the second process has a disk of its own, on which there is nothing of the run
BLIND = """
import os
from pathlib import Path
from bootdiff.training import saved_state

if os.environ["RANK"] == "1":
    is_dir = Path.is_dir
    Path.is_dir = lambda path: not path.name.startswith("step-") and is_dir(path)
    saved_state.latest_checkpoint = lambda folder: None
    Watch.enough = property(lambda self: False)
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def two(code: str, *words: object, **more: str) -> list[subprocess.Popen]:
    """Two processes without a launcher, which would end the one when the other has gone."""
    known = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), **more}
    places = [{"RANK": str(n), "LOCAL_RANK": str(n), "LOCAL_WORLD_SIZE": "2"} for n in range(2)]
    return [
        subprocess.Popen(
            [sys.executable, "-c", code, *map(str, words)],
            env={**known, **place},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for place in places
    ]


def test_a_process_is_silent_when_it_was_not_heard_for_the_time_that_is_set():
    it, now = Presence(0, 3, seconds=60), time.monotonic()
    assert it.silent(now + 59) is None and it.silent(now + 62) == 1
    it._hear(1, 5)
    it.heard[1] = now + 50
    assert it.silent(now + 62) == 2
    it._hear(2, presence._LEFT + 3)  # it has ended well
    assert it.silent(now + 100) is None and it.silent(now + 111) == 1
    it._hear(1, 5)  # the same count is no sign of life
    assert it.silent(now + 111) == 1


@pytest.mark.parametrize("count", ["1", "2"])
@pytest.mark.parametrize("words", ["soon", "0", "-5", "inf", "nan"])
def test_the_time_is_checked_before_anything_begins(cli, monkeypatch, words, count):
    for name, value in {"WORLD_SIZE": count, "RANK": "0", presence.VARIABLE: words}.items():
        monkeypatch.setenv(name, value)
    done = cli("inspect", "digits")
    assert done.code == 2
    assert done.err == (
        f"bootdiff: error: BOOTDIFF_PROCESS_TIMEOUT should be a number of seconds from 1 on, got '{words}'.\n"
    )


@pytest.mark.parametrize("name", ["WORLD_SIZE", "RANK", "MASTER_PORT"])
@pytest.mark.parametrize("words", ["two", "-2", "1e3"])
def test_what_the_launcher_says_is_checked_before_anything_begins(cli, monkeypatch, name, words):
    for key, value in {"WORLD_SIZE": "2", "RANK": "0", name: words}.items():
        monkeypatch.setenv(key, value)
    done = cli("inspect", "digits")
    assert done.code == 2 and done.err.count("\n") == 1, done.err
    assert f"{name} should be a whole number, as torchrun sets it, got '{words}'" in done.err


def test_one_process_is_not_kept_waiting_by_anybody(monkeypatch):
    monkeypatch.setattr(Presence, "among_others", lambda self: pytest.fail("alone, and waiting for others"))
    with presence.kept():
        assert word_of_first("this") == "this" and gathered(3) == [3]
    with pytest.raises(RuntimeError, match="gloo"), told_when_lost():
        raise RuntimeError("gloo: Connection closed by peer")


@pytest.mark.parametrize(
    "words",
    [
        "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.1.1]:3412",
        "NCCL error: remote process exited or there was a network error",
        "Timed out waiting 1800000ms for recv operation to complete",
    ],
)
def test_a_message_that_breaks_off_is_one_line(monkeypatch, words):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(BootdiffError, match=r"^process 2 of 4 ends because another one has ended"), told_when_lost():
        raise RuntimeError(words)
    with pytest.raises(RuntimeError, match="shape"), told_when_lost():
        raise RuntimeError("shape '[2]' is invalid")


def test_a_host_program_keeps_its_state_its_random_numbers_and_its_signals(tiny, tmp_path, monkeypatch):
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    def never() -> None:
        pytest.fail("the process's allocator is changed by a library")

    monkeypatch.setattr("bootdiff.system.allocator.keep_freed_memory", never)
    monkeypatch.setattr("bootdiff.cli.main.keep_freed_memory", never)
    AcceleratorState._reset_state(reset_partial_state=False)
    host = Accelerator(mixed_precision="bf16", gradient_accumulation_steps=4)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    torch.manual_seed(11)
    before = torch.get_rng_state()
    distill(str(tiny), tmp_path / "run", BootSettings(steps=2, batch_size=8, sample_every=0))
    assert torch.equal(torch.get_rng_state(), before)
    assert host.mixed_precision == AcceleratorState().mixed_precision == "bf16"
    assert host.gradient_accumulation_steps == GradientState().num_steps == 4
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    AcceleratorState._reset_state(reset_partial_state=False)
    GradientState._reset_state()


@pytest.mark.slow
@pytest.mark.multi
@pytest.mark.parametrize(
    ("victim", "number"), [(1, signal.SIGKILL), (1, signal.SIGSTOP), (0, signal.SIGKILL), (0, signal.SIGSTOP)]
)
def test_when_one_process_is_killed_or_stopped_the_other_ends_in_one_line(tiny, tmp_path, victim, number):
    words = ["distill", tiny, "--output", tmp_path / "run", "--steps", 1_000_000, *OPTIONS]
    processes = two(TELLING, *words, "--set", "checkpoint_every=1", BOOTDIFF_PROCESS_TIMEOUT="20")
    try:
        seen = iter(processes[0].stdout.readline, "checkpoint 2\n")  # each waits for a line; "" is the end
        assert "" not in seen, "the run ended before its second checkpoint"
        processes[victim].send_signal(number)
        other = processes[1 - victim]
        _, err = other.communicate(timeout=300)
        assert other.returncode == 2, err
    finally:
        for process in processes:
            process.kill()
            process.wait()
    errors = [line for line in err.splitlines() if line.startswith("bootdiff: ")]
    assert len(errors) == 1 and "Traceback" not in err, err
    assert "run the same command again" in errors[0] and len(errors[0]) <= 300


@pytest.mark.slow
@pytest.mark.multi
def test_processes_agree_though_each_sees_a_disk_of_its_own(tiny, tmp_path):
    """On the step to resume from, and on the look that is enough; the student is that of two that see the same."""
    first, run = tmp_path / "first", tmp_path / "blind"
    words = [*OPTIONS, "--set", "checkpoint_every=2", "--steps", 8, "--set", "watch_every=4"]
    finish(two(SEEING + "run()", "distill", tiny, "--output", first, *words))
    shutil.copytree(first, run)
    (run / "done.json").unlink()
    shutil.rmtree(run / "checkpoints/step-00000004")
    finish(two(SEEING + BLIND + "run()", "distill", tiny, "--output", run, *words))
    assert json.loads((run / "done.json").read_text())["steps"] == 4
    assert same(load_file(run / WEIGHTS), load_file(first / WEIGHTS))


def finish(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
