"""What a training step costs in two commits, in one process and in turns.

    python benchmarks/step_pairs.py                     # what was changed since the parent of the present commit
    python benchmarks/step_pairs.py 0123abcd .          # a commit and the working tree; about five minutes

Both packages are imported beside each other; each is the one called ``bootdiff`` while its turn lasts. A turn carries
out ``bootdiff distill`` until it has seen enough steps. An optimiser that steps says the time, so that neither loading
nor writing counts, and neither commit is asked for anything of its own. The time is the processor's that this process
has used, with one thread: on a machine that does other work, too, it is steadier than the clock's.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import runpy
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from common import ratios, table
from records import FOLDER, new_record, write_record
from sides import Side, add_sides, last_words, refuse, take
from torch.optim.optimizer import register_optimizer_step_post_hook

clock = time.process_time
#: steps of a turn that do not count: the first ones fetch memory
WARM = 8
#: steps between boundary losses, which only that many steps have alike
PERIOD = 4


@dataclass(frozen=True)
class Job:
    """A command, and which of its optimisers marks a step; they are numbered as they come to work."""

    command: str
    optimiser: int


_QUIET = "--steps 1000000 --set log_every=1000000 --set sample_every=0 --set checkpoint_every=1000000"
JOBS: Mapping[str, Job] = {
    "boot": Job(f"distill digits --batch-size 32 {_QUIET} --set watch_every=0", 0),
    # the first stage's student, the fake, the student
    "boot+dm": Job(
        f"distill digits --method boot+dm --batch-size 32 {_QUIET} --set watch_every=0"
        " --set fake_warmup=2 --set boot.steps=2 --set boot.batch_size=8 --set boot.sample_every=0"
        " --set boot.watch_every=0",
        2,
    ),
}


@dataclass
class Package:
    """One side's package: within ``with package:`` it is the one that is imported."""

    side: Side
    modules: dict[str, ModuleType] = field(default_factory=dict)
    others: dict[str, ModuleType] = field(default_factory=dict)

    def __enter__(self) -> Package:
        self.others = _taken_out()
        sys.modules.update(self.modules)
        sys.path.insert(0, str(self.side.src))
        import bootdiff

        if not Path(str(bootdiff.__file__)).is_relative_to(self.side.src):
            refuse(f"another package was imported, from {bootdiff.__file__}.")
        return self

    def __exit__(self, *error: object) -> None:
        sys.path.remove(str(self.side.src))
        self.modules = _taken_out()
        sys.modules.update(self.others)


def _taken_out() -> dict[str, ModuleType]:
    """The package's modules, no longer imported."""
    names = [name for name in sys.modules if name.partition(".")[0] == "bootdiff"]
    return {name: sys.modules.pop(name) for name in names}


class Enough(BaseException):
    """Every step has been seen: the run ends here."""


@dataclass
class Marks:
    """The times at which one of a run's optimisers stepped."""

    optimiser: int
    wanted: int
    seen: list[object] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def __call__(self, optimiser: object, *words: object) -> None:
        now = clock()
        if not any(one is optimiser for one in self.seen):
            self.seen.append(optimiser)
        if len(self.seen) > self.optimiser and optimiser is self.seen[self.optimiser]:
            self.times.append(now)
            if len(self.times) == self.wanted:
                raise Enough


def turn(package: Package, job: Job, steps: int) -> float:
    """Seconds of a step: the median of so many, PERIOD at a time, after those that warm up."""
    marks = Marks(job.optimiser, WARM + steps + 1)
    with tempfile.TemporaryDirectory() as folder, package, _hook(marks):
        said = _carry_out([*shlex.split(job.command), "--output", f"{folder}/run"])
    if len(marks.times) < marks.wanted:
        refuse(f"'bootdiff {job.command}' ended too early with {package.side.name}: {said}")
    moments = marks.times[WARM::PERIOD]
    return statistics.median(later - earlier for earlier, later in itertools.pairwise(moments)) / PERIOD


@contextlib.contextmanager
def _hook(marks: Callable[..., None]) -> Iterator[None]:
    handle = register_optimizer_step_post_hook(marks)
    try:
        yield
    finally:
        handle.remove()


def _carry_out(words: Sequence[str]) -> str:
    """Type a command that is ended by ``Enough``; otherwise, the last line that it said."""
    typed = sys.argv
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        try:
            sys.argv = ["bootdiff", *words]
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                runpy.run_module("bootdiff", run_name="__main__")
        except (Enough, SystemExit):
            pass
        finally:
            sys.argv = typed
        said.seek(0)
        return last_words(said.read())


def pairs(job: Job, before: Package, after: Package, count: int, steps: int) -> tuple[list[float], list[float]]:
    """Seconds of a step of either, pair by pair; the second goes first in every other one, and one comes before all."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(-1, count):
        for which in (0, 1) if number % 2 else (1, 0):
            took = turn((before, after)[which], job, steps)
            if number >= 0:
                seconds[which].append(took)
    return seconds


def row(method: str, before: Sequence[float], after: Sequence[float]) -> dict[str, Any]:
    """A method's line of the table."""
    median, low, high = ratios(after, before)
    return {
        "method": method,
        "after ÷ before, median": round(median, 4),
        "smallest": round(low, 4),
        "largest": round(high, 4),
        "pairs": len(before),
        "ms a step, before": round(1000 * statistics.median(before), 3),
        "ms a step, after": round(1000 * statistics.median(after), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add_sides(parser)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--steps", type=int, default=40, help=f"of a turn; a multiple of {PERIOD}")
    parser.add_argument("--output", type=Path, default=FOLDER / "step-pairs.json")
    asked = parser.parse_args()
    if asked.pairs < 1 or asked.steps < 1 or asked.steps % PERIOD:
        refuse(f"expected at least one pair, of turns whose number of steps is a multiple of {PERIOD}.")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve()
        before, after = take(asked.before, place / "before"), take(asked.after, place / "after")
        packages, rows = (Package(before), Package(after)), []
        for method, job in JOBS.items():
            rows.append(row(method, *pairs(job, *packages, asked.pairs, asked.steps)))
            print(f"{method}: {rows[-1]['after ÷ before, median']}", file=sys.stderr, flush=True)
    table([list(line.values()) for line in rows], list(rows[0]))
    words = ["python", "benchmarks/step_pairs.py", before.word, after.word]
    words += ["--pairs", str(asked.pairs), "--steps", str(asked.steps)]
    tables = {"commits": [{"before": before.name, "after": after.name}], "steps": rows}
    write_record(asked.output, new_record(tables, [0], shlex.join(words)))


if __name__ == "__main__":
    main()
