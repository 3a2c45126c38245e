"""The check that stops a run at values that are not finite, and saves what is needed to look at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import torch
from torch import Tensor

from bootdiff.core.errors import NonFiniteLossError
from bootdiff.methods.base import Loss
from bootdiff.storage.files import save_tensors, write_json, write_whole

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Watched:
    """A turn whose values have not been looked at yet.

    Args:
        name: the learner's name.
        step: the step, counted from 0.
        parts: (terms, noise) for each accumulation step.
        norm: the norm of the gradient, a scalar.
    """

    name: str
    step: int
    parts: Sequence[tuple[Sequence[Loss], Tensor]]
    norm: Tensor


class Health:
    """Checks a turn's values when the next turn has been started, so that a GPU never waits.

    Weights that a bad turn has spoiled are never saved, because a check precedes every checkpoint.
    """

    def __init__(self, folder: Path, accelerator: Accelerator) -> None:
        self.folder, self.accelerator = folder, accelerator
        self.watched: Watched | None = None
        self.finite: Tensor | None = None
        self.ready: torch.cuda.Event | None = None

    def watch(self, turn: Watched) -> None:
        """Keep a turn for the next check."""
        totals = [loss.total for losses, _ in turn.parts for loss in losses]
        self.watched, self.finite = turn, torch.isfinite(torch.stack([*totals, turn.norm]))
        if self.finite.is_cuda:
            # Copied behind this turn's work; waiting for the copy later does not wait for what was queued since.
            host = torch.empty(self.finite.shape, dtype=torch.bool, pin_memory=True)
            self.finite = host.copy_(self.finite, non_blocking=True)
            self.ready = torch.cuda.Event()
            self.ready.record()

    def check(self) -> None:
        """Check the turn that is kept, if there is one.

        Raises:
            NonFiniteLossError: if its loss or gradient is not finite; its batch is saved first.
        """
        turn, self.watched = self.watched, None
        if turn is None or self.finite is None:
            return
        if self.ready is not None:
            self.ready.synchronize()
        finite = self.finite.tolist()
        if not all(finite[:-1]):
            self._fail(turn, "loss")
        # With fp16 a gradient that overflows is normal: the scaler leaves that step out.
        if not finite[-1] and self.accelerator.scaler is None:
            self._fail(turn, "gradient")

    def _fail(self, turn: Watched, what: str) -> NoReturn:
        bad = [part for part in turn.parts if not all(bool(torch.isfinite(loss.total)) for loss in part[0])]
        losses, noise = (bad or turn.parts)[0]
        folder = self.folder / f"failure-step-{turn.step:08d}"
        by_time = {key: value for loss in losses for key, value in loss.by_time.items()}
        times = {f"{key}.t": t for key, (t, _) in by_time.items()}
        values = {f"{key}.value": value for key, (_, value) in by_time.items()}
        process = self.accelerator.process_index
        batch = {"noise": noise, **times, **values}
        write_whole(folder / f"batch-{process}.safetensors", lambda temporary: save_tensors(temporary, batch))
        bounds = [float(v) for t in times.values() if len(t) for v in (t.min(), t.max())]
        span = [min(bounds), max(bounds)] if bounds else []
        scalars = {key: str(value.item()) for loss in losses for key, value in loss.scalars.items()}
        words = {"step": turn.step, "turn": turn.name, "what": what, "t_from_to": span, "scalars": scalars}
        write_json(folder / f"failure-{process}.json", words)
        times_met = f" (t from {span[0]:.3g} to {span[1]:.3g})" if span else ""
        raise NonFiniteLossError(
            f"the {what} of '{turn.name}' is not finite at step {turn.step}{times_met}; its batch is in {folder}. "
            "Lower the learning rate, or set gradient_clip, and start a new run; the last good checkpoint is unchanged."
        )
