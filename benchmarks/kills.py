"""Kills commands (kill -9) at random moments, runs them again, and compares what they leave with an undisturbed run.

    python benchmarks/kills.py --threads 1              # 200 kills; writes docs/records/kills.json
    python benchmarks/kills.py --kills 20 --seed 3

A run counts as the same if it holds the same files with the same bytes, but for the time that things took, and nothing
hidden beside them. Half of the kills wait for the next write, because writing takes a small part of the time. One
process that has imported everything forks a child for every run of a command; the child calls what ``bootdiff`` calls,
with one thread; a report's pictures take two steps of the teacher. The same command line goes on where it was stopped.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from common import arguments, table
from contents import contents, unlike
from records import FOLDER, commit, new_record, write_record

from bootdiff.whole import has_leftovers

#: of a command's work that was killed once, the share that is killed again before it may end
AGAIN = 0.9
#: the share of the kills that wait until something is being written, and the seconds for which they let it
AT_A_WRITE, WRITING = 0.5, 0.02

SHORT = ["--batch-size", "8"]
SHORT += [word for often in ("log=2", "checkpoint=2", "sample=5") for word in ("--set", often.replace("=", "_every="))]
JOBS: Mapping[str, Sequence[str]] = {
    "distill": ["distill", "digits", "--steps", "8", *SHORT, "--set", "watch_every=5"],
    "distill --method boot+dm": [
        *("distill", "digits", "--method", "boot+dm", "--steps", "5", *SHORT),
        *("--set", "fake_warmup=2", "--set", "boot.steps=5", "--set", "watch_every=0", "--set", "boot.watch_every=0"),
    ],
    "train-teacher": [
        *("train-teacher", "digits", "--steps", "8", "--batch-size", "8", "--set", "channels=[8,16]"),
        *("--set", "layers_per_block=1", "--set", "log_every=2", "--set", "checkpoint_every=2"),
        *("--set", "sample_every=5"),
    ],
    "compare": ["compare", "../student", "--calls", "1", "--no-heun", "--num", "8"],
    "export": ["export", "../student"],
}


class Ended(NamedTuple):
    """How a command ended: its exit code, or minus the signal that killed it, after how many seconds."""

    code: int
    seconds: float


def run(words: Sequence[str], place: Path, kill_after: float | None = None, write: float | None = None) -> Ended:
    """Run a command in a child process, in a folder of its own, and kill it after some seconds unless it has ended.

    Args:
        write: from then on wait until something is being written, and for so many seconds more.
    """
    place.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _be_the_command(words, place)
    if kill_after is not None:
        time.sleep(kill_after)
        while write is not None and not has_leftovers(place) and _is_running(child):
            time.sleep(0.0005)
        time.sleep(write or 0)
        os.kill(child, signal.SIGKILL)  # until it is waited for, its number is nobody else's
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Ended(code, time.monotonic() - started)


def _is_running(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def _be_the_command(words: Sequence[str], place: Path) -> None:
    code: Any = 1
    try:
        os.chdir(place)
        log = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["BOOTDIFF_CACHE"] = str(place / "cache")
        sys.argv = ["bootdiff", *words, "--output", "run"]
        from bootdiff.cli.main import run as command
        from bootdiff.report import samples

        samples.TEACHER_STEPS = 2
        try:
            command()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        Path("modules.txt").write_text("\n".join(sorted(sys.modules)))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def differences(place: Path, whole: Mapping[str, str]) -> list[str]:
    """What a trial left that an undisturbed run does not have, or has otherwise."""
    hidden = [str(path.relative_to(place)) for path in sorted(place.rglob(".*"))]
    return [*unlike(whole, contents(place / "run")), *hidden]


class Trial(NamedTuple):
    """One folder in which a command was killed, perhaps several times, and then came to its end.

    Args:
        kills: how often it was killed.
        writing: of these, how often something was being written.
        wrong: what is not as in an undisturbed run.
    """

    job: str
    kills: int
    writing: int
    seconds: float
    wrong: Sequence[str]


def attempt(job: str, place: Path, whole: Mapping[str, str], seconds: float, chance: random.Random) -> Trial:
    """Kill a command at random moments of the time that an undisturbed one takes, then let it end."""
    kills = writing = 0
    ended = Ended(-signal.SIGKILL, 0.0)
    while kills == 0 or chance.random() < AGAIN:
        write = chance.uniform(0, WRITING) if chance.random() < AT_A_WRITE else None
        ended = run(JOBS[job], place, chance.uniform(0, seconds), write)
        if ended.code != -signal.SIGKILL:  # it was faster
            break
        kills += 1
        writing += has_leftovers(place)
    # It takes a new folder only, and refuses one that was whole when the kill came; what that holds is compared below.
    exported = job == "export" and kills > 0 and (place / "run").exists()
    if ended.code == -signal.SIGKILL and not exported:
        ended = run(JOBS[job], place)
    wrong = differences(place, whole)
    if ended.code not in (0, -signal.SIGKILL) and not exported:
        wrong = [f"exit code {ended.code}", *wrong]
    return Trial(job, kills, writing, seconds, wrong)


def undisturbed(job: str, place: Path) -> tuple[dict[str, str], float]:
    """The files of a run that nobody kills, which another one must have as well, and how long it takes."""
    whole: dict[str, str] = {}
    for _ in range(2):  # the second time without waiting for imports
        shutil.rmtree(place, ignore_errors=True)
        ended = run(JOBS[job], place)
        if ended.code:
            sys.exit(f"{job} failed: {(place / 'said.txt').read_text()[-1000:]}")
        _import_all((place / "modules.txt").read_text().split())
        wrong = differences(place, whole := whole or contents(place / "run"))
        if wrong:
            sys.exit(f"two undisturbed runs of {job} differ in {', '.join(wrong[:5])}.")
    return whole, ended.seconds


def _import_all(names: Sequence[str]) -> None:
    """What the command has imported, so that its next child need not."""
    for name in names:
        if name not in sys.modules and not name.startswith("__"):
            with suppress(Exception):
                importlib.import_module(name)


def rows(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """A line for every command."""
    lines = []
    for job in JOBS:
        own = [trial for trial in trials if trial.job == job]
        lines.append(
            {
                "command": job,
                "kills": sum(trial.kills for trial in own),
                "of these while something was written": sum(trial.writing for trial in own),
                "runs that came to their end": len(own),
                "of these as an undisturbed one": sum(not trial.wrong for trial in own),
                "seconds of an undisturbed one": round(max((trial.seconds for trial in own), default=0.0), 1),
            }
        )
    return lines


def known(path: Path) -> list[Trial]:
    """The trials of an earlier start of the same command line."""
    return [Trial(*json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def carry_out(work: Path, kills: int, seed: int) -> list[Trial]:
    """Kill each command its share of times; every finished trial is kept as a line."""
    trials, place = known(work / "trials.jsonl"), work / "place"  # one for all: a run knows where it was started
    wholes: dict[str, tuple[dict[str, str], float]] = {}
    while (done := sum(trial.kills for trial in trials)) < kills:
        number = len(trials)
        job = list(JOBS)[number % len(JOBS)]
        if "student" not in wholes:
            start = run(["distill", "digits", "--steps", "6", "--batch-size", "8"], work / "start")
            if start.code:
                sys.exit(f"no student to begin with: {(work / 'start' / 'said.txt').read_text()[-1000:]}")
            shutil.rmtree(work / "student", ignore_errors=True)
            shutil.copytree(work / "start" / "run", work / "student")
            wholes["student"] = {}, start.seconds
        if job not in wholes:
            wholes[job] = undisturbed(job, place)
        shutil.rmtree(place, ignore_errors=True)
        trial = attempt(job, place, *wholes[job], random.Random(f"{seed} {number}"))
        if not trial.kills:  # the machine was faster than before: as good as no trial
            continue
        trials.append(trial)
        with (work / "trials.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(trial) + "\n")
        said = ", ".join(trial.wrong[:5]) or "the same"
        print(f"{done + trial.kills}/{kills} kills: {job}, killed {trial.kills} times: {said}", flush=True)
        if trial.wrong:
            place.rename(work / f"wrong-{number}")
    return trials


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="where trials lie; default: a temporary folder of commit and seed")
    options = parser.parse_args()
    work = options.work or Path(tempfile.gettempdir()) / f"bootdiff-kills-{commit()}-{options.seed}"
    work.mkdir(parents=True, exist_ok=True)
    import torch

    torch.set_num_threads(1)
    trials = carry_out(work.resolve(), options.kills, options.seed)
    lines = rows(trials)
    table([list(map(str, line.values())) for line in lines], list(lines[0]))
    write_record(options.output or FOLDER / "kills.json", new_record({"kills": lines}, [options.seed]))
    wrong = [trial for trial in trials if trial.wrong]
    if wrong:
        sys.exit(f"{len(wrong)} runs are not as an undisturbed one; they are kept in {work}.")


if __name__ == "__main__":
    main()
