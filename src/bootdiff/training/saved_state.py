"""The contents of a run's checkpoints: how they are taken from what trains, and put back into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from bootdiff.core.errors import BootdiffError, first_line
from bootdiff.methods.base import Objective
from bootdiff.storage.whole import sync
from bootdiff.system.out_of_memory import let_pass
from bootdiff.system.processes import gathered, word_of_first
from bootdiff.training.checkpoint import (
    check_state,
    check_tensors,
    checkpoint_before,
    drop_old_checkpoints,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from bootdiff.training.learner_state import LearnerState
from bootdiff.training.log import Meter
from bootdiff.training.passes import RunPasses


@dataclass(frozen=True)
class SavedState:
    """All of a run that a resume must find again.

    That is its learners, the objective's own tensors, what the log has counted, and the passes so far.

    Args:
        folder: the run's folder; ``checkpoints/`` is written there.
        keep_last: the number of checkpoints that are kept.
    """

    folder: Path
    keep_last: int
    objective: Objective
    learners: Mapping[str, LearnerState]
    meter: Meter
    accelerator: Accelerator
    passes: RunPasses

    def save(self, step: int, seconds: float) -> None:
        """Write a checkpoint on the first process, while the others wait for it."""
        counted, passes = self.meter.state_dict(), self.passes.state()
        if self.accelerator.is_main_process:
            tensors = {"objective": self.objective.state_dict(), **({"meter": counted} if counted else {})}
            for name, learner in self.learners.items():
                tensors.update({f"{name}.{file}": values for file, values in learner.tensors().items()})
            state = {
                "seconds": seconds,
                "learners": {name: learner.counts() for name, learner in self.learners.items()},
                "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else None,
                "passes": passes,
            }
            for log in self.folder.glob("*.jsonl"):  # what a checkpoint stands for is on the disk before it
                sync(log)
            save_checkpoint(self.folder / "checkpoints", step, tensors, state, self.keep_last)
        self.accelerator.wait_for_everyone()

    def latest(self) -> Path | None:
        """Return the newest checkpoint, as the first process sees it; None if there is none."""
        return word_of_first(latest_checkpoint(self.folder / "checkpoints"))

    def restore(self, path: Path) -> tuple[int, float]:
        """Put a checkpoint back, and return its step and the seconds of training until then.

        Raises:
            BootdiffError: if it is damaged; the message says what to remove.
        """
        try:
            return self._put_back(*self._loaded(path))
        except (BootdiffError, AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            let_pass(error)
            if isinstance(error.__cause__, OSError):  # it cannot be read here and now; it may be whole
                raise
            why = f"{error} is missing" if isinstance(error, KeyError) else first_line(error)
            before = checkpoint_before(path)
            then = "start anew" if before is None else f"resume from {before.name}"
            raise BootdiffError(
                f"the checkpoint {path} is damaged ({why.split(';')[0]:.200}); remove that folder to {then}."
            ) from error

    def drop_old(self) -> None:
        """Remove all but the newest checkpoints, which must have been read before."""
        drop_old_checkpoints(self.folder / "checkpoints", self.keep_last)

    def _loaded(self, path: Path) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]]:
        """Return a checkpoint's tensors and state.

        Where some process does not see the folder, all of them get the first process's reading.
        """
        if all(gathered(path.is_dir())):
            return load_checkpoint(path)
        return word_of_first(load_checkpoint(path) if self.accelerator.is_main_process else ({}, {}))

    def _put_back(self, tensors: dict[str, dict[str, torch.Tensor]], state: dict[str, Any]) -> tuple[int, float]:
        for name, learner in self.learners.items():
            prefix = f"{name}."
            files = {key.removeprefix(prefix): v for key, v in tensors.items() if key.startswith(prefix)}
            learner.check(name, files, state["learners"][name], state["step"])
            learner.restore(files, state["learners"][name])
        check_tensors("objective", tensors["objective"], self.objective.state_dict())
        self.objective.load_state_dict(tensors["objective"])
        self.meter.load_state_dict(tensors.get("meter", {}))
        passes = state.get("passes")  # an earlier version counted none
        check_state({"passes": passes}, passes=dict | None)
        check_state(passes or {}, **dict.fromkeys(passes or {}, int | float))
        self.passes.restore(passes)
        if self.accelerator.scaler and state["scaler"]:
            check_state(state["scaler"], **{key: type(v) for key, v in self.accelerator.scaler.state_dict().items()})
            self.accelerator.scaler.load_state_dict(state["scaler"])
        return state["step"], state["seconds"]
