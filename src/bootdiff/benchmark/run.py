"""The training and measuring of a benchmark's runs, each in a process of its own, in a folder that resumes."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bootdiff.benchmark.budget import scaled
from bootdiff.benchmark.plan import FILE, PASSES, SETTINGS, TRIAL_RUNS, BenchmarkPlan, Job, settings_of, trial_of
from bootdiff.benchmark.results import MARK, Result, mark_of, read_result, results_in
from bootdiff.benchmark.table import write_results
from bootdiff.core.errors import BootdiffError, Interrupted, first_line
from bootdiff.evaluation.evaluate import evaluate_student
from bootdiff.storage.files import read_json, write_json, write_text
from bootdiff.storage.reading import read_config
from bootdiff.storage.runs import DONE, trained_seconds
from bootdiff.system.notes import note

#: the steps of a first short run from which a method's speed is learned
TRIAL = 40
#: the share of a budget in minutes that a trial should have, and how many trials there are at most
ENOUGH, TRIALS = 0.05, 2


@dataclass
class Runner:
    """Carries out a plan; whatever is finished is left as it is."""

    plan: BenchmarkPlan
    #: the reasons why runs have no figures, by their folders
    failed: dict[Path, str] = field(default_factory=dict)

    def run(self) -> list[Result]:
        """Train and measure everything, and return what the folder holds then; the table is written after each run.

        Raises:
            Interrupted: after Ctrl-C; the next call goes on.
            BootdiffError: if none of the runs has figures; the table says why.
        """
        self._write()
        asked = [list(self.plan.jobs(kind)) for kind in self.plan.asked.budgets]
        for jobs in asked:
            for number, job in enumerate(jobs, 1):
                seed = f", seed {job.seed}" if len(self.plan.asked.seeds) > 1 else ""
                done = self._done(job)
                print(f"{job.kind}, {number} of {len(jobs)}: {job.method}{seed}{' (done)' * done}", flush=True)
                if not done:
                    self._carry_out(job)
                    self._write()
        found = self._write(draws=True)
        if not {result.folder for result in found} & {job.folder for jobs in asked for job in jobs}:
            raise BootdiffError(f"no run has figures; {self.plan.asked.output / 'benchmark.md'} says why.")
        return found

    def _done(self, job: Job) -> bool:
        """Whether a run is trained and measured; one whose files cannot be read is not, and is carried out."""
        try:
            return read_result(job.folder, self.plan.identity) is not None
        except BootdiffError:
            return False

    def _carry_out(self, job: Job) -> None:
        """Train a run and measure it; if it fails, the table says so, and the others go on."""
        try:
            if not (job.folder / DONE).exists():
                self._train(job)
            self._measure(job)
        except BootdiffError as error:
            self.failed[job.folder] = first_line(error)
            note(f"{job.method}: {first_line(error)}")

    def _train(self, job: Job) -> None:
        file = job.settings
        if not file.exists():  # once for all: a run is resumed with the settings that it began with
            words = self._words(job)
            write_text(file, yaml.safe_dump(words, sort_keys=False))
        distil(self.plan, job.method, file, job.folder)

    def _words(self, job: Job) -> Mapping[str, Any]:
        """Return a run's settings, as long as its budget."""
        budget = self.plan.asked.budgets[job.kind]
        if job.kind == PASSES:
            return self.plan.with_passes(job.method, job.words, budget)
        seconds, factor = self._speed(job, 60 * budget)
        words = scaled(job.words, factor * 60 * budget / seconds)
        settings_of(job.method, words)  # says whether lengths so short go together
        return words

    def _speed(self, job: Job, budget: float) -> tuple[float, float]:
        """Return the seconds of a short run, and its length as a share of the recipe's; of a longer one if need be."""
        steps, found = float(TRIAL), (1.0, 1.0)
        for number in range(TRIALS):
            folder = self.plan.asked.output / TRIAL_RUNS / job.method / f"{number}"
            words, factor = trial_of(job.words, steps)
            file = folder.with_name(f"{number}-{SETTINGS}")
            if file.exists():
                words = read_config(file)
                factor = words["steps"] / job.words["steps"]
            else:
                write_text(file, yaml.safe_dump(words, sort_keys=False))
            distil(self.plan, job.method, file, folder)
            seconds = max(trained_seconds(folder), 0.1)
            found = seconds, factor
            if seconds >= ENOUGH * budget or factor == 1:
                break
            steps = words["steps"] * ENOUGH * budget / seconds
        return found

    def _measure(self, job: Job) -> None:
        measured = self.plan.asked.measured
        told = evaluate_student(str(job.folder), measured, job.folder / "evaluation.json", self.plan.unnamed)
        write_json(job.folder / "evaluation.json", {**told, MARK: mark_of(self.plan.identity)})

    def _write(self, draws: bool = False) -> list[Result]:
        output = self.plan.asked.output
        found, damaged = results_in(output, self.plan.identity)
        known = {result.folder.relative_to(output).as_posix() for result in found}
        before = read_json(output / FILE).get("failed", {}) if (output / FILE).exists() else {}
        own = {path.relative_to(output).as_posix(): why for path, why in {**self.failed, **damaged}.items()}
        reasons = {run: str(why) for run, why in {**before, **own}.items() if run not in known}
        write_results(self.plan, found, reasons, draws)
        return found


def distil(plan: BenchmarkPlan, method: str, settings: Path, run: Path) -> None:
    """Train one run by the command line, in a process of its own, whose memory is then the run's alone.

    Raises:
        BootdiffError: if it fails; what it said stands above.
        Interrupted: if it, or this process, was asked to end.
    """
    words = ["distill", plan.asked.teacher, "--method", method, "--config", settings, "--output", run]
    for key, value in plan.asked.loaded.options.items():
        words += [f"--{key.replace('_', '-')}", value]
    child = subprocess.Popen([sys.executable, "-m", "bootdiff", *map(str, words)])
    try:
        code = child.wait()
    except KeyboardInterrupt:
        if child.poll() is None:
            child.send_signal(signal.SIGINT)  # within the same press of Ctrl-C, where a terminal has sent it already
        try:
            child.wait()
        except KeyboardInterrupt:  # a second press, which the run has had, too
            child.kill()
            child.wait()
        raise stopped() from None
    if code in (130, -signal.SIGINT):
        raise stopped()
    if code:
        raise BootdiffError(f"its training failed with exit code {code}; the reason stands above.")


def stopped() -> Interrupted:
    """Return the error of a benchmark that was asked to end."""
    return Interrupted("stopped; finished runs are kept, so run the same command to go on.")
