"""Whatever the moment of a kill, files are whole and nothing hidden stays; one process at a time works in a folder."""

import errno
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError, Interrupted
from bootdiff.data.prompt_cache import PromptCache, write_cache
from bootdiff.distillation.distill import distill
from bootdiff.methods.boot import BootSettings
from bootdiff.schedules import Cosine
from bootdiff.storage import whole
from bootdiff.storage.files import append_line, write_json, write_text, write_whole
from bootdiff.storage.lock import LOCK, lock
from bootdiff.teachers import Gaussian
from bootdiff.training.checkpoint import save_checkpoint
from bootdiff.training.loop import Loop
from bootdiff.training.stopping import Stopping
from killing import dead, forked, held, hidden, killed_before
from toys import command

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

SMALL = ["--steps", "2", "--batch-size", "4", "--set", "sample_every=0"]


def settings(**fields) -> BootSettings:
    usual = {"steps": 12, "batch_size": 8, "t_min": 0.02, "t_max": 0.7, "watch_every": 0, "sample_every": 0}
    return BootSettings(**{**usual, "log_every": 4, "checkpoint_every": 5, **fields})


def train(run: Path, **fields) -> None:
    distill(Gaussian(0.0, 0.5, (1, 2, 2), Cosine()), run, settings(**fields))


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def two_files(word: str):
    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / "one").write_text(word)
        write_text(folder / "two", word)

    return write


def untimed(log: Path) -> list[dict]:
    return [{**json.loads(line), "seconds": None} for line in log.read_text().splitlines()]


@pytest.fixture
def synced(monkeypatch, true_sync):
    """The disk is asked to keep what is written, as it is outside the tests."""
    monkeypatch.setattr(whole, "_sync_one", true_sync)


@pytest.fixture(scope="module")
def student(tiny, tmp_path_factory) -> Path:
    """A finished run of two steps."""
    run = tmp_path_factory.mktemp("files") / "student"
    distill(str(tiny), run, BootSettings(steps=2, batch_size=4, sample_every=0, watch_every=0))
    return run


# A kill at any moment


@pytest.mark.parametrize("at_once", [True, False], ids=["one step", "two steps"])
def test_a_folder_that_is_replaced_is_old_or_new_whenever_the_process_is_killed(tmp_path, at_once, monkeypatch):
    """Also where the file system cannot exchange two names; there the next writer brings the old folder back."""
    if not at_once:
        monkeypatch.setattr(whole, "_exchange", lambda one, other: False)
    old, new = {"one": "old", "two": "old"}, {"one": "new", "two": "new"}
    change, seen = 1, []
    while True:
        place = tmp_path / str(change)
        write_whole(place / "folder", two_files("old"))
        killed = killed_before(change, lambda: write_whole(place / "folder", two_files("new")), place)  # noqa: B023
        if at_once:
            seen.append(contents(place / "folder"))
        write_json(place / "other.json", {})
        seen.append(contents(place / "folder"))
        assert all(found in (old, new) for found in seen), (change, seen[-2:])
        assert not hidden(place)
        if not killed:
            break
        change += 1
    assert change > 8 and old in seen and seen[-1] == new


def test_a_checkpoint_that_is_dropped_is_never_seen_half_removed(tmp_path):
    def save(folder: Path, step: int) -> None:
        save_checkpoint(folder, step, {"a": {"w": torch.ones(2)}, "b": {"w": torch.ones(3)}}, {}, keep_last=1)

    names = {"a.safetensors", "b.safetensors", "state.json"}
    change, killed = 1, True
    while killed:
        place = tmp_path / str(change)
        save(place, 1)
        killed = killed_before(change, lambda: save(place, 2), place)  # noqa: B023
        left = [path for path in place.iterdir() if not path.name.startswith(".")]
        assert left and all({file.name for file in path.iterdir()} == names for path in left), change
        save(place, 3)
        assert [path.name for path in place.iterdir()] == ["step-00000003"]
        change += 1


@pytest.mark.parametrize("command", ["export", "sample"])
def test_what_a_kill_leaves_is_cleaned_by_the_next_command_that_writes_there(command, student, tmp_path, cli):
    suffix = {"export": "", "sample": ".png"}[command]
    words = {"export": ["export", student], "sample": ["sample", student, "--num", 2]}[command]

    def call(name: str):
        return cli(*words, "--output", tmp_path / "out" / f"{name}{suffix}")

    assert killed_before(1, lambda: call("one"), tmp_path / "out", {"os.rename"}) and hidden(tmp_path / "out")
    done = call("two")
    assert done.code == 0, done.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"two{suffix}"]


def test_only_leftovers_of_processes_that_are_dead_on_this_host_are_removed(tmp_path):
    here, gone, parent = whole.this_host(), dead(), os.getppid()
    stay = [f".a.bootdiff-{here}-0.{parent}.tmp", f".a.bootdiff-other-0.{gone}.tmp", f".notes.{gone}.tmp", ".a.tmp"]
    go = [f".b.bootdiff-{here}-3.{gone}.tmp.png", f".a.{gone}.tmp.json", f".c.bootdiff-{here}-0.{os.getpid()}.tmp"]
    for name in (*stay, *go):
        (tmp_path / name).mkdir()
    write_json(tmp_path / "a.json", {"a": 1})
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", *stay}


def test_a_finished_run_is_rid_of_what_a_kill_at_its_very_end_has_left(tmp_path):
    train(tmp_path / "run")
    (tmp_path / "run" / LOCK).write_text("{}")
    (tmp_path / "run" / "student-path" / f".x.bootdiff-{whole.this_host()}-0.{dead()}.tmp").mkdir()
    train(tmp_path / "run")
    assert not hidden(tmp_path / "run")


def test_a_teacher_is_whole_whenever_its_training_is_killed_while_it_is_saved(tmp_path, monkeypatch, cli):
    """A folder with model_index.json holds all that it names, and the same command makes the same files."""
    words = ["train-teacher", "digits", *SMALL, "--set", "channels=[8]", "--set", "layers_per_block=1", "--output"]
    from bootdiff.teaching import teach

    original, change = teach._save, None
    monkeypatch.setattr(
        teach,
        "_save",
        lambda untrained, output, names: (
            original(untrained, output, names)
            if change is None
            else killed_before(change, lambda: original(untrained, output, names), output)
        ),
    )
    assert cli(*words, tmp_path / "whole").code == 0
    expected = {name for name in os.listdir(tmp_path / "whole") if not name.startswith("log")}
    for change in (3, 12, 20):
        run = tmp_path / f"killed {change}"
        assert cli(*words, run).code == 0
        if (run / "model_index.json").exists():
            parts = [name for name, value in json.loads((run / "model_index.json").read_text()).items() if value]
            assert all((run / name).is_dir() for name in parts if not name.startswith("_")), change
    change = None
    for n in (3, 12, 20):
        assert cli(*words, tmp_path / f"killed {n}").code == 0
        assert expected <= set(os.listdir(tmp_path / f"killed {n}")) and not hidden(tmp_path / f"killed {n}")


# Synced before a rename counts


def test_files_and_their_folder_are_on_the_disk_before_a_name_counts(tmp_path, synced, monkeypatch):
    on_disk, renamed = set(), []
    fsync, replace, exchange = os.fsync, os.replace, whole._exchange

    def noted(handle: int) -> None:
        fsync(handle)
        on_disk.add(os.fstat(handle).st_ino)
        renamed[:] = [folder for folder in renamed if folder != os.fstat(handle).st_ino]

    def rename(how):
        def call(source, target):
            source, target = Path(source), Path(target)
            if not any(".tmp" in part for part in target.parts[-3:]):  # what is within another is synced with it
                inside = [source, *source.rglob("*")] if source.is_dir() else [source]
                assert all(path.stat().st_ino in on_disk for path in inside), target
                renamed.append(target.parent.stat().st_ino)
            return how(source, target)

        return call

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", rename(replace))
    monkeypatch.setattr(whole, "_exchange", rename(exchange))
    train(tmp_path / "run")
    assert len(on_disk) > 10 and not renamed
    log = tmp_path / "run" / "log.jsonl"
    assert log.stat().st_ino in on_disk


def test_an_older_checkpoint_stays_until_a_later_one_was_read_back(tmp_path, monkeypatch):
    folder, state = tmp_path / "checkpoints", {"student": {"w": torch.ones(20)}}
    save_checkpoint(folder, 1, state, {}, keep_last=1)

    def wrong(values, path, metadata=None):
        save_file({name: value + 1 for name, value in values.items()}, path)

    def cut(values, path, metadata=None):
        save_file(values, path)
        os.truncate(path, 60)

    for disk in (wrong, cut):
        monkeypatch.setattr("safetensors.torch.save_file", disk)
        with pytest.raises(BootdiffError, match="step-00000002 was written and could not be read back") as told:
            save_checkpoint(folder, 2, state, {}, keep_last=1)
        assert "are kept" in str(told.value) and len(str(told.value)) - len(str(folder)) < 300
        assert [path.name for path in folder.iterdir()] == ["step-00000001"]


def test_a_checkpoint_may_hold_what_is_no_number(tmp_path):
    save_checkpoint(tmp_path, 1, {"a": {"w": torch.tensor([torch.nan, -0.0]), "none": torch.empty(0)}}, {}, keep_last=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


# One process in a folder


@pytest.fixture
def ask(tiny, student, tmp_path):
    """Commands that write into a folder for long."""
    (tmp_path / "ablation.yaml").write_text(
        f"teacher: {tiny}\nsettings: {{steps: 2, batch_size: 4, sample_every: 0}}\nvary: {{delta: [0.1, 0.2]}}\n"
    )
    return {
        "distill": ["distill", tiny, *SMALL],
        "distill in two stages": ["distill", tiny, "--method", "boot+dm", *SMALL, "--set", "fake_warmup=1"],
        "train-teacher": ["train-teacher", "digits", *SMALL],
        "compare": ["compare", student, "--samplers", "ddim:1", "--num", "4"],
        "ablate": ["ablate", tmp_path / "ablation.yaml"],
    }


@pytest.mark.parametrize("name", ["distill", "distill in two stages", "train-teacher", "compare", "ablate"])
def test_a_second_process_is_told_who_is_at_work(name, ask, tmp_path, cli):
    with held(tmp_path / "run") as child:
        second = cli(*ask[name], "--output", tmp_path / "run")
        assert second.code == 2 and os.listdir(tmp_path / "run") == [LOCK]
    said = [line for line in second.err.splitlines() if "error" in line]
    assert len(said) == 1 and f"in use by process {child} on host {socket.gethostname()}, since" in said[0]
    assert len(said[0]) < 300 and not (tmp_path / "run").exists()


def test_figures_are_not_put_into_a_run_in_training(student, cli, tmp_path, monkeypatch):
    monkeypatch.setattr("bootdiff.storage.lock.time.sleep", lambda seconds: None)
    monkeypatch.setattr("bootdiff.evaluation.evaluate.PATIENCE", 0.0)
    words = ["evaluate", student, "--num", "4", "--calls", "1", "--no-heun", "--output", tmp_path / "figures.json"]
    with held(student) as child:
        done = cli(*words)
        assert done.code == 2 and f"in use by process {child} on" in done.err
        assert not (student / "evaluation.json").exists() and (tmp_path / "figures.json").exists()


def test_a_killed_process_holds_nobody_up(tmp_path):
    """Nor does a lock file that names a process of another host, which the system knows to be free."""

    def killed() -> None:
        with lock(tmp_path / "run"):
            os.kill(os.getpid(), signal.SIGKILL)

    assert forked(killed) == -signal.SIGKILL and (tmp_path / "run" / LOCK).exists()
    train(tmp_path / "run")
    assert not hidden(tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / LOCK).write_text(json.dumps({"host": "another", "pid": 1}))
    train(tmp_path / "other")
    assert not hidden(tmp_path / "other")


def test_where_the_file_system_knows_no_locks_the_process_that_is_named_counts(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    for name, host, pid, taken in [
        ("alive", socket.gethostname(), os.getppid(), True),
        ("dead", socket.gethostname(), dead(), False),
        ("elsewhere", "another", 1, True),
    ]:
        (tmp_path / name).mkdir()
        (tmp_path / name / LOCK).write_text(json.dumps({"host": host, "pid": pid}))
        if taken:
            with pytest.raises(BootdiffError, match=f"in use by process {pid} on host {host}"), lock(tmp_path / name):
                pass
        else:
            with lock(tmp_path / name):
                assert (tmp_path / name / LOCK).exists()


def test_a_thread_may_lock_again_and_another_may_not(tmp_path):
    said = []

    def other() -> None:
        try:
            with lock(tmp_path / "run"):
                said.append("")
        except BootdiffError as error:
            said.append(str(error))

    with lock(tmp_path / "run"), lock(tmp_path / "run"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert (tmp_path / "run" / LOCK).exists()
    assert "another thread of this process" in said[0] and not (tmp_path / "run").exists()


def test_of_several_processes_the_first_locks_for_all(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with lock(tmp_path / "run"):
        assert not (tmp_path / "run").exists()


# A resumed run's log


def stop_at(monkeypatch, cut: int, stop) -> None:
    original = Loop._report

    def report(self, bar):
        original(self, bar)
        if self.step == cut:
            stop(self)

    monkeypatch.setattr(Loop, "_report", report)


@pytest.mark.parametrize("cut", [6, 9, 10])
def test_the_log_of_a_run_that_was_stopped_is_that_of_an_undisturbed_one(tmp_path, monkeypatch, cut):
    """Whatever lies between two lines: what was counted since the last one is part of a checkpoint."""
    train(tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, cut, lambda loop: os.kill(os.getpid(), signal.SIGHUP))
        with pytest.raises(Interrupted, match=f"stopped at step {cut} of 12"):
            train(tmp_path / "stopped")
    train(tmp_path / "stopped")
    assert untimed(tmp_path / "stopped/log.jsonl") == untimed(tmp_path / "whole/log.jsonl")
    assert len(untimed(tmp_path / "whole/log.jsonl")) == 3


def test_the_log_of_a_run_that_was_killed_has_no_line_twice(tmp_path, monkeypatch):
    train(tmp_path / "whole")

    def killed() -> None:
        stop_at(monkeypatch, 9, lambda loop: os.kill(os.getpid(), signal.SIGKILL))
        train(tmp_path / "killed")

    assert forked(killed) == -signal.SIGKILL
    assert [line["step"] for line in untimed(tmp_path / "killed/log.jsonl")] == [4, 8]  # the checkpoint is of step 5
    train(tmp_path / "killed")
    assert untimed(tmp_path / "killed/log.jsonl") == untimed(tmp_path / "whole/log.jsonl")
    kept = [sorted(os.listdir(tmp_path / name / "checkpoints")) for name in ("killed", "whole")]
    assert kept[0] == kept[1]


# Signals and broken pipes


def test_a_run_under_nohup_goes_on_when_the_terminal_closes(tmp_path, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop_at(monkeypatch, 3, lambda loop: os.kill(os.getpid(), signal.SIGHUP))
        train(tmp_path / "run")
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (tmp_path / "run" / "done.json").exists()


class Alone:
    num_processes, device = 1, torch.device("cpu")


def test_a_signal_that_comes_twice_at_once_is_one_press(monkeypatch):
    """torchrun sends its processes again what the terminal has sent them."""
    now = [100.0]
    monkeypatch.setattr("bootdiff.training.stopping.time.monotonic", lambda: now[0])
    stopping = Stopping(Alone())
    with stopping.listening():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping.wanted(1)
        now[0] += 5
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


class Two(Alone):
    """One of two processes; the other one was asked to stop after some time."""

    num_processes = 2

    def __init__(self) -> None:
        self.asked = 0
        self.other = False

    def reduce(self, told, how):
        self.asked += 1
        return told + torch.tensor([float(self.other), told[1].item()])


@pytest.mark.parametrize(("a_step", "questions"), [(5.0, 20), (0.01, 2)])
def test_several_processes_ask_each_other_about_once_a_second(monkeypatch, a_step, questions):
    """At every step of a slow training, however seldom it writes to its log."""
    now = [0.0]
    monkeypatch.setattr("bootdiff.training.stopping.time.monotonic", lambda: now[0])
    two = Two()
    stopping = Stopping(two)
    for step in range(1, 21):
        now[0] += a_step
        assert not stopping.wanted(step)
    assert two.asked <= questions
    two.other = True
    wanted = []
    for step in range(21, 21 + int(2 / a_step) + 2):
        now[0] += a_step
        wanted.append(stopping.wanted(step))
    assert any(wanted)


@pytest.fixture
def unread():
    """A pipe that nobody reads, as a text file."""
    reader, writer = os.pipe()
    os.close(reader)
    yield io.TextIOWrapper(io.BufferedWriter(io.FileIO(writer, "w", closefd=False)))
    os.close(writer)


def test_a_training_goes_on_when_nobody_reads_its_standard_error(tmp_path, unread, monkeypatch):
    monkeypatch.setattr(sys, "stderr", unread)
    train(tmp_path / "run")
    assert sys.stderr is unread and (tmp_path / "run" / "done.json").exists()


def test_a_command_whose_output_nobody_reads_says_nothing_wrong(tiny, student, monkeypatch, capsys, unread):
    from bootdiff.cli.main import run

    (student / "report.html").unlink(missing_ok=True)
    words = ["distill", tiny, "--output", student, *SMALL, "--set", "watch_every=0"]
    monkeypatch.setattr(sys, "argv", ["bootdiff", *map(str, words)])
    monkeypatch.setattr(sys, "stdout", unread)
    with pytest.raises(SystemExit) as end:
        run()
    assert not end.value.code
    assert (student / "report.html").exists() and capsys.readouterr().err == ""


# A full disk


def test_a_disk_that_is_too_small_for_the_prompts_says_so_after_the_first_batch(tmp_path, monkeypatch):
    asked, made = [], []

    def full(handle: int, start: int, size: int) -> None:
        asked.append(size)
        raise OSError(errno.ENOSPC, "No space left on device")

    def batches():
        for number in range(3):
            made.append(number)
            yield Condition({"embeds": torch.zeros(2, 7, 5)})

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(BootdiffError, match=r"cannot be written \(No space left on device\)") as told:
        write_cache(tmp_path / "prompts", 6, batches(), "digest")
    assert "\n" not in str(told.value) and not list(tmp_path.iterdir())
    assert made == [0] and 6 * 7 * 5 * 4 < asked[0] < 6 * 7 * 5 * 4 + 256


def test_prompts_on_disk_are_what_was_written(tmp_path):
    rows = torch.randn(6, 7, 5)
    write_cache(
        tmp_path / "prompts", 6, (Condition({"embeds": part, "ids": part[:, 0, 0] > 0}) for part in rows.split(4)), "d"
    )
    cache = PromptCache(tmp_path / "prompts")
    assert torch.equal(cache.rows(range(6))["embeds"], rows)
    assert np.load(tmp_path / "prompts" / "ids.npy").tolist() == (rows[:, 0, 0] > 0).tolist()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")
def test_a_log_on_a_full_disk_is_one_line():
    with pytest.raises(BootdiffError, match=r"^/dev/full cannot be written \(No space left on device\)"):
        append_line(Path("/dev/full"), {"step": 1})


# Real processes


@pytest.mark.slow
def test_a_command_in_a_pipe_that_closes_ends_well(tiny, tmp_path):
    """``bootdiff distill … 2>&1 | head -1``"""
    words = command("distill", tiny, "--output", tmp_path / "run", *SMALL)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(300) == 0
    assert (tmp_path / "run" / "report.html").exists() and not hidden(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.multi
def test_two_processes_that_the_terminal_stops_save_at_the_same_step(tiny, tmp_path):
    """Ctrl-C reaches both of them, and torchrun, which tells them again."""
    often = ["--set", "log_every=1000", "--set", "checkpoint_every=100000", "--set", "watch_every=0"]
    words = ["distill", tiny, "--output", tmp_path / "run", *SMALL, "--steps", "100000", *often]
    with subprocess.Popen(
        command(*words, processes=2), stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        for line in process.stderr:
            if line.startswith("training student"):
                break
        os.killpg(process.pid, signal.SIGINT)
        said = process.stderr.read()
        process.wait(300)
    assert "stopped at step" in said, said[-2000:]
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert f"stopped at step {int(checkpoint.name.removeprefix('step-'))} of" in said and not hidden(tmp_path / "run")


# What the benchmark that kills would notice


def test_the_benchmark_sees_another_byte_and_hidden_files_and_no_times(student, tmp_path):
    from contents import contents
    from kills import differences

    shutil.copytree(student, tmp_path / "run")
    whole = contents(tmp_path / "run")
    done = json.loads((tmp_path / "run/done.json").read_text())
    write_json(tmp_path / "run/done.json", {**done, "seconds": 1e6})
    assert len(whole) > 8 and not differences(tmp_path, whole)
    write_json(tmp_path / "run/done.json", {**done, "steps": 3})
    weights = tmp_path / "run/student/unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    (tmp_path / "run" / "samples" / ".one.tmp").mkdir(parents=True)
    seen = differences(tmp_path, whole)
    assert seen == ["done.json", "student/unet/diffusion_pytorch_model.safetensors", "run/samples/.one.tmp"]


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("compare.csv", "sampler,calls,images_per_second\nDDIM,{calls},{speed}\n"),
        (
            "compare.md",
            "# T\n\n| sampler | calls | images/s |\n| --- | --- | --- |\n| DDIM | {calls} | {speed} |\n",
        ),
    ],
)
def test_the_benchmark_leaves_times_out_of_tables(tmp_path, name, table):
    from contents import untimed

    said = []
    for calls, speed in ((1, 5), (1, 6), (2, 5)):
        (tmp_path / name).write_text(table.format(calls=calls, speed=speed))
        said.append(untimed(tmp_path / name))
    assert said[0] == said[1] != said[2]


def test_a_tilde_that_no_shell_has_seen_makes_no_folder(cli, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli("distill", tiny, "--output", "~/run", "--steps", "1", "--batch-size", "2")
    assert done.code == 2 and "called ~" in done.err and not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_no_folder_that_was_made_for_it(tmp_path):
    def write(path: Path) -> None:
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        whole.write_whole(tmp_path / "deep" / "er" / "file.txt", write)
    assert not list(tmp_path.iterdir())
    whole.write_whole(tmp_path / "deep" / "er" / "file.txt", lambda path: path.write_text("all"))
    assert (tmp_path / "deep/er/file.txt").read_text() == "all"
