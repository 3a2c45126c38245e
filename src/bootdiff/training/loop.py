"""The training loop, which knows networks that learn in turns, and no method's name."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import nn

from bootdiff.config.settings import TrainingSettings
from bootdiff.core.errors import Interrupted
from bootdiff.core.passes import counting
from bootdiff.core.randomness import Draw
from bootdiff.core.turn import Turn
from bootdiff.methods.base import Objective
from bootdiff.system.out_of_memory import told_when_out_of_memory
from bootdiff.system.processes import word_of_first
from bootdiff.system.progress import Progress, progress
from bootdiff.system.streams import unheard
from bootdiff.training.health import Health, Watched
from bootdiff.training.learner_state import LearnerState
from bootdiff.training.log import Meter, append_line, truncate_log
from bootdiff.training.networks import checkpoint_networks, compile_networks
from bootdiff.training.passes import RunPasses
from bootdiff.training.saved_state import SavedState
from bootdiff.training.stopping import Stopping

#: a function that draws samples on the way; it is called with the step and the networks with averaged weights
Preview = Callable[[int, dict[str, nn.Module]], None]


class Watcher(Protocol):
    """Something that looks at the learners during training, and says when they have learned enough.

    Only the first process looks.
    """

    def due(self, step: int) -> bool:
        """Return whether to look after so many steps; the answer is the same on every process."""
        ...

    def begin(self, step: int) -> None:
        """Forget what was seen after this step, from which the run goes on."""
        ...

    def look(self, step: int, networks: Mapping[str, nn.Module]) -> None:
        """Look at the networks, which have averaged weights, and write down what is seen."""
        ...

    @property
    def enough(self) -> bool:
        """Whether to end the run here, from what is written; the answer is the same on every process."""
        ...


class Loop:
    """Trains an objective's learners in a run folder, from the latest checkpoint if there is one.

    Args:
        objective: what learns, and how.
        settings: the steps, the batch, the rates and what is logged.
        folder: the run's folder; ``checkpoints/`` and ``log.jsonl`` are written there.
        accelerator: the result of ``make_accelerator``.
        preview: a function that draws samples every ``settings.sample_every`` steps.
        watch: what looks at the convergence, and may end the run.
        within: which part of a longer run this is, in words that follow the learners' names.
    """

    def __init__(
        self,
        objective: Objective,
        settings: TrainingSettings,
        folder: Path,
        accelerator: Accelerator,
        preview: Preview | None = None,
        watch: Watcher | None = None,
        within: str = "",
    ) -> None:
        self.objective, self.settings, self.folder, self.accelerator = objective, settings, folder, accelerator
        self.preview, self.watch, self.enough = preview, watch, False
        for module in (*objective.frozen(), *objective.source.modules()):
            module.to(accelerator.device)
        learning = [learner.module for learner in objective.learners().values()]
        if settings.gradient_checkpointing:
            checkpoint_networks(learning)
        self.compiled = compile_networks([*objective.frozen(), *learning]) if settings.compile else []
        self.passes = RunPasses.of(objective)
        self.learners = {
            name: LearnerState(learner, settings, accelerator) for name, learner in objective.learners().items()
        }
        self.networks = WithAverages({name: learner.raw for name, learner in self.learners.items()}, self.learners)
        self.what = " and ".join(self.learners) + within
        self.meter = Meter(accelerator)
        self.state = SavedState(
            folder, settings.keep_last, objective, self.learners, self.meter, accelerator, self.passes
        )
        self.step, self.seconds, self.saved, self.rate = 0, 0.0, -1, 0.0
        self.health = Health(folder, accelerator)
        self.stopping = Stopping(accelerator)

    def run(self, show_progress: bool = True) -> dict[str, LearnerState]:
        """Train to the last step, and return the learners by name.

        Raises:
            Interrupted: after Ctrl-C, SIGTERM or SIGHUP, once the state is saved.
            NonFiniteLossError: if a loss or gradient is not finite; its batch is saved first.
        """
        self._resume()
        show = show_progress and self.accelerator.is_main_process
        bars = progress(f"training {self.what}", self.settings.steps, self.step, show)
        listening, counted = self.stopping.listening(), self.passes.attached()
        with told_when_out_of_memory(self._lower), unheard(), listening, counted, bars as bar:
            started = time.monotonic() - self.seconds
            while self.step < self.settings.steps and not self.enough:
                with counting(self.objective.source.kind):
                    self._ahead()
                turns = list(self.objective.turns(self.step))
                with counting():
                    for number, name in enumerate(turns):
                        self._turn(name, turns[:number].count(name))
                self.objective.after_step(self.networks, self.step)
                self.step += 1
                self.seconds = time.monotonic() - started
                self._report(bar)
                self._look()
                bar.advance()
                if self.step % self.settings.checkpoint_every == 0:
                    self.save()
                self._stop_if_asked()
            self.save()
        for network in self.compiled:  # whoever uses them next may be on another device
            network._compiled_call_impl = None
        return self.learners

    @property
    def _lower(self) -> str:
        """Return advice, as part of a sentence, on what to do where memory runs out."""
        asked = self.settings
        parts = f"raise gradient_accumulation (now {asked.gradient_accumulation}), which keeps the batch in parts"
        return f"lower batch_size (now {asked.batch_size}), or {parts}; finished checkpoints are kept"

    def _turn(self, name: str, again: int = 0) -> None:
        """Run one learner's forward and backward passes, over the accumulation steps, and update it.

        Args:
            again: how many turns the learner has already had in this step.
        """
        learner, settings, accelerator = self.learners[name], self.settings, self.accelerator
        if len(self.learners) > 1:
            for other, state in self.learners.items():
                for parameter in state.parameters:
                    parameter.requires_grad_(other == name)
        # Only the learner whose turn it is goes through its wrapper: one that is called and gets no gradient would
        # leave DistributedDataParallel waiting.
        networks = WithAverages({**self.networks, name: learner.prepared}, self.learners, self.networks.averages)
        share = 1 / settings.gradient_accumulation
        parts = []
        for part, draw in enumerate(self._draws(f"{name} {again}" if again else name)):
            with torch.no_grad():
                batch = self.objective.source.batch(draw)
            turn = Turn(name, self.step, self.step / settings.steps, draw)
            with accelerator.autocast():
                terms = self.objective.losses(networks, turn, batch)
            losses = []
            for number, term in enumerate(terms):
                # Gradients are exchanged between processes with the last backward pass only.
                last = part == settings.gradient_accumulation - 1 and number == len(terms) - 1
                with nullcontext() if last else accelerator.no_sync(learner.prepared):
                    with accelerator.autocast():
                        loss = term()
                    accelerator.backward(loss.total * share)
                losses.append(replace(loss, total=loss.total.detach()))
            self.meter.add(losses, share)
            parts.append((losses, batch.noise))
        norm, self.rate = learner.update(self.step)
        self.health.check()
        self.health.watch(Watched(name, self.step, parts, norm))

    def _draws(self, turn: str) -> Iterator[Draw]:
        """Yield this process's slices of the global batch, one for each accumulation step."""
        settings, accelerator = self.settings, self.accelerator
        size = settings.batch_size // (accelerator.num_processes * settings.gradient_accumulation)
        first = accelerator.process_index * size * settings.gradient_accumulation
        for part in range(settings.gradient_accumulation):
            start = first + part * size
            yield Draw(
                settings.seed, self.step, turn, start, start + size, settings.batch_size, str(accelerator.device)
            )

    def _ahead(self) -> None:
        """Let the source make what the step needs; where that is stopped, what was learned so far is saved."""
        try:
            self.objective.source.ahead(self.step, self.settings.batch_size)
        except Interrupted:
            if self.step:
                self.save()
            raise

    def save(self) -> None:
        """Write a checkpoint of the present step, unless that was done."""
        if self.saved == self.step:
            return
        self.health.check()
        self.saved = self.step
        self.state.save(self.step, self.seconds)

    def _resume(self) -> None:
        path = self.state.latest()
        if path is not None:
            self.step, self.seconds = self.state.restore(path)
            self.saved = self.step
            if self.accelerator.is_main_process and self.step < self.settings.steps:
                print(f"resuming {self.what} from step {self.step}.", file=sys.stderr)
        if self.accelerator.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            if path is not None:
                self.state.drop_old()
            truncate_log(self.folder / "log.jsonl", self.step)
            if self.watch is not None:
                self.watch.begin(self.step)
        self.enough = word_of_first(self.watch is not None and self.watch.enough)

    def _report(self, bar: Progress) -> None:
        """Write a line of the log and draw a preview, where these are due."""
        settings, step = self.settings, self.step
        if step % settings.log_every == 0 or step == settings.steps:
            values, passes = self.meter.read(), self.passes.totals()
            bar.text = "" if values["loss"] is None else f"loss {values['loss']:.3g}"
            if self.accelerator.is_main_process:
                samples = step * settings.batch_size
                rates = {"rate": self.rate, "seconds": round(self.seconds, 3), "samples": samples}
                cost = {} if passes is None else {"passes": passes}
                append_line(self.folder / "log.jsonl", {"step": step, **values, **rates, **cost})
            if self.accelerator.log_with:
                scalars = {name: value for name, value in values.items() if isinstance(value, float)}
                self.accelerator.log(scalars, step=step)
        due = settings.sample_every and (step % settings.sample_every == 0 or step == settings.steps)
        if due and self.preview is not None and self.accelerator.is_main_process:
            with averaged(self.learners) as networks:
                self.preview(step, networks)

    def _look(self) -> None:
        """Look at the convergence, where a look is due."""
        if self.watch is None or not self.watch.due(self.step):
            return
        self.health.check()  # a network that is not finite stops the run, and is not looked at
        if self.accelerator.is_main_process:
            with averaged(self.learners) as networks:
                self.watch.look(self.step, networks)
        self.enough = word_of_first(self.watch.enough)

    @property
    def stop_signal(self) -> int | None:
        """Return the number of the signal that asked the loop to stop; None if none has."""
        return self.stopping.signal

    @stop_signal.setter
    def stop_signal(self, number: int | None) -> None:
        self.stopping.signal = number

    def _stop_if_asked(self) -> None:
        if self.stopping.wanted(self.step) and self.step < self.settings.steps:
            self.save()
            raise Interrupted(
                f"stopped at step {self.step} of {self.settings.steps}; run the same command to go on ({self.what})."
            )


class WithAverages(dict[str, nn.Module]):
    """The networks of a turn by name, and under ``learner@average`` a learner's averages, made when first asked for.

    Args:
        networks: the learners' networks.
        learners: the learners, which keep the averages.
        averages: the networks of averages that were made before.
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        learners: Mapping[str, LearnerState],
        averages: dict[str, nn.Module] | None = None,
    ) -> None:
        super().__init__(networks)
        self.learners, self.averages = learners, {} if averages is None else averages

    def __missing__(self, name: str) -> nn.Module:
        learner, _, average = name.partition("@")
        if name not in self.averages:
            self.averages[name] = self.learners[learner].network(average)
        return self.averages[name]


@contextmanager
def averaged(learners: dict[str, LearnerState]) -> Iterator[dict[str, nn.Module]]:
    """Give every learner's raw network, by name, with its averaged weights in place."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(learner.averaged()) for name, learner in learners.items()}
