"""Runs the stages of the GPU benchmarks, one after another, and writes a record after each. See docs/gpu.md.

    python benchmarks/gpu/run.py STAGE… --minutes M --output FOLDER [--work FOLDER] [--toy]

A stage whose record is in FOLDER is skipped; a training that was stopped goes on from the work folder.
"""

from __future__ import annotations

import argparse
import atexit
import importlib
import json
import multiprocessing
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

STARTED = time.monotonic()
HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
#: seconds from the request to stop until the process is ended
GRACE = 15.0
#: the child cannot use the GPU because its parent has touched it
POISONED = 77
#: files that may come back
MOST_FILES = 8


@dataclass(frozen=True)
class Stage:
    """How long a stage may take, and how little time it is not begun with, both in minutes."""

    minutes: float
    least: float


STAGES = {
    "smoke": Stage(1, 0.4),
    "step": Stage(2, 0.7),
    "sample": Stage(1, 0.4),
    "fashion": Stage(3, 1.5),
    "fashion-long": Stage(9, 4),
    "colour-teacher": Stage(4, 2),
    "colour-student": Stage(3, 1.5),
    "colour-methods": Stage(9, 2.5),
}
#: whose archive comes back first, where there is room for some only
FIRST_BACK = ("colour-teacher", "colour-student", "fashion-long", "fashion")
#: at toy size no stage is worth more than this
TOY_LEAST = 0.05


def main() -> None:
    asked = arguments()
    prepare()
    forks: bool | None = None
    for name in asked.stages:
        if finished(asked.output, name):
            print(f"{name}: resumed: its record is in {asked.output}", flush=True)
        elif left(asked) < least(asked, name):
            words = f"{max(0, left(asked)):.1f} minutes are left, it needs {least(asked, name):g}"
            print(f"{name}: not begun: {words}", flush=True)
        else:
            forks = load() if forks is None else forks  # the time that this takes is the stages'
            minutes = max(0.01, min(STAGES[name].minutes, left(asked)))
            print(f"{name}: {run_stage(asked, name, minutes, forks)}", flush=True)
            try:
                hand_back(asked.output, asked.work, asked.stages)
            except OSError as error:  # the other stages can do without
                print(f"  an archive cannot be handed back: {error}", flush=True)
    sys.exit(0 if all(finished(asked.output, name) for name in asked.stages) else 1)


def left(asked: argparse.Namespace) -> float:
    """Minutes."""
    return asked.minutes - (time.monotonic() - STARTED) / 60


def least(asked: argparse.Namespace, name: str) -> float:
    """Minutes that a stage is not begun without."""
    return TOY_LEAST if asked.toy else STAGES[name].least


def arguments() -> argparse.Namespace:
    """What was asked; wrong words end with code 2 and one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stages", nargs="+", metavar="STAGE", help=", ".join(STAGES))
    parser.add_argument("--minutes", type=float, required=True, help="for all stages together")
    parser.add_argument("--output", type=Path, required=True, help="records and archives: 8 files, 16 MiB each")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "gpu", help="checkpoints, which need not last")
    parser.add_argument("--toy", action="store_true", help="tiny networks: to see that everything runs, on any machine")
    # Of a stage that was started anew, in this very process: its deadline on time.monotonic's clock.
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    parser.error = lambda message: sys.exit(_refuse(message))  # type: ignore[assignment]
    asked = parser.parse_args()
    for name in asked.stages:
        if name not in STAGES:
            parser.error(f"there is no stage '{name}'; expected {', '.join(STAGES)}.")
    for option, folder in (("--output", asked.output), ("--work", asked.work)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"{option} {folder} cannot be made ({error.strerror}); name a folder.")
    if not asked.minutes > 0:
        parser.error(f"--minutes should be above 0, got {asked.minutes:g}.")
    if not asked.toy and shutil.which("nvidia-smi") is None and not list(Path("/dev").glob("nvidia*")):
        parser.error("no GPU is to be seen (no nvidia-smi, nothing called nvidia in /dev); elsewhere add --toy.")
    return asked


def _refuse(message: str) -> int:
    print(f"run.py: {message}", file=sys.stderr)
    return 2


def prepare() -> None:
    """Set the paths and the environment of this process and of its children, with the packed wheels where needed."""
    paths = [str(p) for p in (HERE, ROOT / "benchmarks", ROOT / "src", ROOT / "tests")]
    if find_spec("diffusers") is None or find_spec("pydantic") is None:
        paths.insert(0, str(install_wheels()))
    sys.path[:0] = paths
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    # Whether there is a GPU can then be asked without touching it: a process that has touched it cannot be forked.
    usual = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
    for key, value in {**usual, "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}.items():
        os.environ.setdefault(key, value)


def install_wheels() -> Path:
    """The packed wheels in a folder of their own, whose name no other run of this user has."""
    wheels = sorted((HERE / "packed" / "wheels").glob("*.whl"))
    if not wheels:
        sys.exit(
            _refuse("diffusers or pydantic is missing, and so are their wheels; run benchmarks/gpu/pack.sh first.")
        )
    target = Path(tempfile.mkdtemp(prefix="bootdiff-wheels-"))
    owner = os.getpid()  # a forked child must leave them
    atexit.register(lambda: os.getpid() == owner and shutil.rmtree(target, ignore_errors=True))
    ours = f"cp{sys.version_info.major}{sys.version_info.minor}"
    for wheel in wheels:
        kind = wheel.stem.split("-")[2]
        if kind not in ("py3", "py2.py3", ours):
            sys.exit(_refuse(f"{wheel.name} is not for this Python, {ours}; pack again with pack.sh --python VERSION."))
        with zipfile.ZipFile(wheel) as archive:  # a wheel without scripts is a folder of its packages
            archive.extractall(target)
    return target


def load() -> bool:
    """Import what every stage needs, once, so that a forked child has it; whether it may be forked.

    It may where no import has touched the GPU.
    """
    import accelerate  # noqa: F401
    import diffusers
    import torch
    import transformers

    import bootdiff.distillation.stage
    import bootdiff.evaluation.evaluate
    import bootdiff.training.loop  # noqa: F401

    diffusers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    for name in ("UNet2DModel", "DDPMScheduler", "DDPMPipeline", "ConsistencyModelPipeline"):  # lazy otherwise
        getattr(diffusers, name)
    return not torch.cuda.is_initialized()


def run_stage(asked: argparse.Namespace, name: str, minutes: float, forks: bool) -> str:
    """Run a stage in a process of its own, because a CUDA error is there to stay; what became of it, in words."""
    began = time.monotonic()
    code = _wait(_forked(asked, name, minutes), minutes * 60) if forks else POISONED
    if code == POISONED:
        print(f"  {name}: the forked process cannot use the GPU; starting a new one", flush=True)
        code = _wait(_spawned(asked, name, minutes), minutes * 60)
    outcome = _outcome(asked.work, name, code)
    return f"{outcome} ({time.monotonic() - began:.0f} s)"


class Child:
    """A stage's process, forked or started anew, in a process group of its own."""

    def __init__(self, process: multiprocessing.Process | subprocess.Popen[bytes]) -> None:
        self.process = process
        self.pid = int(process.pid or 0)

    def wait(self, seconds: float) -> int | None:
        """Its exit code; None if it still runs."""
        if isinstance(self.process, subprocess.Popen):
            try:
                return self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                return None
        self.process.join(seconds)
        return self.process.exitcode


def _forked(asked: argparse.Namespace, name: str, minutes: float) -> Child:
    process = multiprocessing.get_context("fork").Process(target=child, args=(asked, name, minutes))
    process.start()
    return Child(process)  # type: ignore[arg-type]


def _spawned(asked: argparse.Namespace, name: str, minutes: float) -> Child:
    words = [name, "--minutes", f"{minutes}", "--output", str(asked.output), "--work", str(asked.work)]
    until = time.monotonic() + minutes * 60  # one clock for all processes of a machine
    command = [sys.executable, __file__, *words, "--until", f"{until}", *(["--toy"] if asked.toy else [])]
    return Child(subprocess.Popen(command, process_group=0))


def _wait(process: Child, seconds: float) -> int | None:
    """Wait; after the time ask it to save and stop; then end it."""
    try:
        code = process.wait(seconds)
        if code is None:
            os.kill(process.pid, signal.SIGINT)
            code = process.wait(GRACE)
    except KeyboardInterrupt:
        os.kill(process.pid, signal.SIGINT)
        process.wait(GRACE)
        raise
    if code is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(GRACE)
    return code


def _outcome(work: Path, name: str, code: int | None) -> str:
    path = work / name / "outcome.json"
    if code is None:
        return f"stopped in time: it did not answer within {GRACE:.0f} s and was ended"
    if not path.exists():
        return f"failed: its process ended with code {code} and said nothing"
    return str(json.loads(path.read_text(encoding="utf-8"))["what"])


def child(asked: argparse.Namespace, name: str, minutes: float) -> None:
    """In the new process: the stage, with its outcome written down."""
    if os.getpgid(0) != os.getpid():
        os.setpgid(0, 0)
    deadline = asked.until or time.monotonic() + minutes * 60
    signal.signal(signal.SIGINT, signal.default_int_handler)
    path = asked.work / name / "outcome.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    _check_gpu(asked)
    what, code = _attempt(asked, name, minutes, deadline)
    path.write_text(json.dumps({"what": what}), encoding="utf-8")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a library's threads, or CUDA after an error, may not let it end


def _check_gpu(asked: argparse.Namespace) -> None:
    import torch

    if asked.toy and not torch.cuda.is_available():
        torch.set_num_threads(1)
        return
    try:
        torch.cuda.init()
        torch.zeros(1, device="cuda").item()
    except RuntimeError as error:
        if asked.until is not None:
            raise
        print(f"  {error}", file=sys.stderr, flush=True)
        os._exit(POISONED)


def _attempt(asked: argparse.Namespace, name: str, minutes: float, deadline: float) -> tuple[str, int]:
    from context import Context, said

    from bootdiff.core.errors import Interrupted, first_line

    command = shlex.join(["python", "benchmarks/gpu/run.py", name, "--minutes", f"{STAGES[name].minutes:g}", "--output",
                          "FOLDER", *(["--toy"] if asked.toy else [])])  # fmt: skip
    context = Context(name, asked.work / name, asked.output, asked.work, deadline, minutes, asked.toy, command)
    try:
        importlib.import_module(f"stages.{name.replace('-', '_')}").run(context)
        context.finish()
        return "done", 0
    except (KeyboardInterrupt, Interrupted) as error:
        words = first_line(error) if isinstance(error, Interrupted) else "its minutes are over"
        return f"stopped in time: {words}; what it had measured is in its record", 1
    except BaseException as error:
        traceback.print_exc()
        return f"failed: {said(error)}", 1


def finished(output: Path, name: str) -> bool:
    """Whether the stage's record is there, from its beginning to its end."""
    from context import read_tables

    return read_tables(output / f"{name}.json") is not None


def hand_back(output: Path, work: Path, stages: Sequence[str]) -> None:
    """Copy archives to the output as far as the records leave room, those first that matter most."""
    records = {*(path.stem for path in output.glob("*.json")), *stages}
    room = MOST_FILES - len(records)
    there = [name for name in FIRST_BACK if (work / "archives" / f"{name}.zip").exists()]
    # An archive of an earlier call may be all that is left of it.
    kept = [name for name in FIRST_BACK if (output / f"{name}.zip").exists() and name not in there]
    chosen = [name for name in FIRST_BACK if name in (*there, *kept)][: max(0, room)]
    for name in FIRST_BACK:
        if name in there and name in chosen:
            shutil.copyfile(work / "archives" / f"{name}.zip", output / f"{name}.zip")
        elif name in there:
            (output / f"{name}.zip").unlink(missing_ok=True)
            print(f"  {name}.zip stays in {work / 'archives'}: {MOST_FILES} files come back", flush=True)


if __name__ == "__main__":
    if "--until" in sys.argv:
        words = arguments()
        prepare()
        load()
        child(words, words.stages[0], words.minutes)
    try:
        main()
    except KeyboardInterrupt:
        print("run.py: stopped; what was measured is in the output, and the same command goes on.", file=sys.stderr)
        sys.exit(130)
