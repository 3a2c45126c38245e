"""The signals that end a command: a job's end and a terminal's end count as Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from bootdiff.system.processes import several


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
