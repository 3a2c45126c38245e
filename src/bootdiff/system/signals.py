"""The signals that end a command: a job's end and a terminal's end count as Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bootdiff.system.processes import several

#: the signals of Ctrl-C, of a job's end, and of a terminal's end
ASKING = ("SIGINT", "SIGTERM", "SIGHUP")


@contextmanager
def heard_by(hear: Callable[[int, Any], None]) -> Iterator[None]:
    """Let a function hear the signals that ask a command to end, within the ``with`` block."""
    before = {}
    for number in (getattr(signal, name) for name in ASKING if hasattr(signal, name)):
        # Under nohup a terminal's end is nothing to this process.
        if number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) == signal.SIG_IGN:
            continue
        try:
            before[number] = signal.signal(number, hear)
        except ValueError:  # not the main thread: nobody can press Ctrl-C here
            break
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Asked:
    """Whether a signal has asked to end: work that may break off ends at once, and whatever else is finished first.

    So several processes, which must not leave each other in the middle of a message, can agree to end.
    """

    def __init__(self) -> None:
        self.to_end = self._breaks = False

    @contextmanager
    def listening(self) -> Iterator[Asked]:
        """Hear signals within the ``with`` block."""
        with heard_by(self._hear):
            yield self

    def unless_asked(self, work: Callable[[], object]) -> None:
        """Do some work, and break it off, without an error, as soon as a signal asks to end."""
        try:
            self._breaks = True
            if not self.to_end:
                work()
        except KeyboardInterrupt:
            if not self.to_end:
                raise
        finally:
            self._breaks = False

    def _hear(self, number: int, frame: Any) -> None:
        self.to_end = True
        if self._breaks:
            self._breaks = False
            raise KeyboardInterrupt


@contextmanager
def all_like_ctrl_c() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` for SIGTERM and SIGHUP within the ``with`` block: a command says how it ended.

    A signal that is ignored stays so, as SIGHUP is under nohup. Of several processes torchrun ends the others by
    SIGTERM when one has failed, and that one has said why: they keep silent.
    """
    names = () if several() else ("SIGTERM", "SIGHUP")
    before = {}
    for number in (getattr(signal, name) for name in names if hasattr(signal, name)):
        if signal.getsignal(number) != signal.SIG_DFL:
            continue
        try:
            before[number] = signal.signal(number, signal.default_int_handler)
        except ValueError:  # only the main thread hears signals
            break
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
