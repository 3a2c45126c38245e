"""Signals that ask a training run to save its state and stop."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from bootdiff.system.signals import heard_by

if TYPE_CHECKING:
    from accelerate import Accelerator

#: a second signal within so many seconds counts as the same press of Ctrl-C, because torchrun passes on to its
#: processes what the terminal has already sent them
ONE_PRESS = 2.0
#: the seconds after which several processes ask each other again, roughly
ASKED_EVERY = 1.0
#: the steps within which they ask at least once, because the next steps may be slower
ASKED_WITHIN = 100


class Stopping:
    """Says from the signals that came whether the loop is to save and stop; the answer is the same on every process.

    Args:
        accelerator: the accelerator, which lets the processes ask each other.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.signal: int | None = None
        self.first = 0.0
        #: the time and the step at which the processes asked each other last, and the step at which they ask next
        self.asked, self.last, self.next = time.monotonic(), 0, 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear signals while the context lasts.

        The first one asks to stop after the present step; a second one, later, stops at once.
        """
        with heard_by(self._hear):
            yield

    def _hear(self, number: int, frame: Any) -> None:
        if self.signal is None:
            self.signal, self.first = number, time.monotonic()
        elif number != getattr(signal, "SIGHUP", None) and time.monotonic() - self.first > ONE_PRESS:
            raise KeyboardInterrupt

    def wanted(self, step: int) -> bool:
        """Return whether to stop after ``step`` steps."""
        asked = self.signal is not None
        if self.accelerator.num_processes == 1:
            return asked
        # All must stop at the same step, and asking costs a message: so all know, too, when they ask again.
        if step < self.next:
            return False
        now = time.monotonic()
        told = torch.tensor([float(asked), now - self.asked], device=self.accelerator.device)
        anyone, seconds = self.accelerator.reduce(told, "sum").tolist()
        steps = step - self.last if self.next else 1  # a resumed run's first step has a large number
        a_step = max(1e-6, seconds / self.accelerator.num_processes / steps)
        self.asked, self.last = now, step
        self.next = step + min(ASKED_WITHIN, max(1, int(ASKED_EVERY / a_step)))
        return anyone > 0
