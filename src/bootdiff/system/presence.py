"""Every process of a command tells the others that it lives, and ends when one of them is silent for too long.

A collective operation waits for its slowest member, and one process may rightly work alone for hours. So it cannot
tell work from death: a process that was stopped, or whose machine is gone, would be waited for. A thread beside the
work tells them apart, because it is stopped and killed with its process, and goes on while that works.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from bootdiff.core.errors import BootdiffError
from bootdiff.system.processes import launched, several

#: after how many seconds of silence a process is given up, and the environment variable that sets another number
VARIABLE, SECONDS = "BOOTDIFF_PROCESS_TIMEOUT", 300.0
#: the port that torchrun uses by default
PORT = 29500
#: the number that is added to a process's count when it has ended well and need not be heard any more
_LEFT = 2**40

_kept = threading.Lock()


def patience() -> float:
    """Return the number of seconds for which another process may be silent.

    Raises:
        BootdiffError: if the environment variable holds no such number.
    """
    words = os.environ.get(VARIABLE, "").strip() or str(SECONDS)
    try:
        seconds = float(words)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds < float("inf"):
        raise BootdiffError(f"{VARIABLE} should be a number of seconds from 1 on, got '{words:.40}'.")
    return seconds


@contextmanager
def kept() -> Iterator[None]:
    """Let this process be heard by the others within the ``with`` block, and end it where one of them is silent.

    Where the process is alone, nothing happens. A process that leaves the block with an error is not taken for one that
    has ended well, so that nobody waits for it.

    Raises:
        BootdiffError: if the environment variable for the number of seconds holds no such number.
    """
    seconds = patience()  # also where this process is alone: a word that cannot be read is told the first time
    if not several() or not _kept.acquire(blocking=False):  # alone, or within it already
        yield
        return
    try:
        launched("MASTER_PORT", PORT)  # which is told here, and not in a thread
        with Presence(launched("RANK", 0), launched("WORLD_SIZE", 1), seconds).among_others():
            yield
    finally:
        _kept.release()


class Presence:
    """One process among several: it tells the others that it lives, and listens whether they do.

    Args:
        index, count: this process's number, from 0, and how many processes there are.
        seconds: the length of silence after which another process is given up.
    """

    def __init__(self, index: int, count: int, seconds: float) -> None:
        self.index, self.count, self.seconds = index, count, seconds
        self.pause = min(1.0, seconds / 10)
        self.counts = dict.fromkeys((n for n in range(count) if n != index), -1)
        self.heard = dict.fromkeys(self.counts, time.monotonic())
        self.well = False
        self.there, self.ended, self.left = threading.Event(), threading.Event(), threading.Event()

    @contextmanager
    def among_others(self) -> Iterator[None]:
        """Talk and listen beside the work within the ``with`` block.

        There are two threads, because a meeting place that does not answer would hold one up.
        """
        for work in (self._talk, self._judge):
            threading.Thread(target=work, name=f"bootdiff {work.__name__}", daemon=True).start()
        well = False
        try:
            yield
            well = True
        except SystemExit as end:  # as every command ends
            well = not end.code
            raise
        finally:
            self.well = well
            self.ended.set()
            if well:
                self.left.wait(5 * self.pause)

    def _talk(self) -> None:
        """Count up this process's number at the meeting place that the launcher named, and read the others' numbers."""
        try:
            place = _meeting_place(self.index == 0, timedelta(seconds=self.seconds))
            self.heard = dict.fromkeys(self.heard, time.monotonic())
            self.there.set()
            while not self.ended.wait(self.pause):
                place.add(str(self.index), 1)
                for other in self.counts:
                    self._hear(other, place.add(str(other), 0))
            if self.well:  # the others need not hear it any more
                place.add(str(self.index), _LEFT)
            self.left.set()
        except (RuntimeError, OSError):
            self.there.set()  # or will never be; nobody is heard any more, and the other thread sees that

    def _hear(self, other: int, count: int) -> None:
        if count != self.counts[other]:
            self.counts[other], self.heard[other] = count, time.monotonic()

    def _judge(self) -> None:
        """End this process when another one has been silent for too long."""
        self.there.wait()
        before = time.monotonic()
        while not self.ended.wait(self.pause):
            now = time.monotonic()
            if now - before > self.seconds / 2:  # this one was itself stopped, and has heard nobody
                self.heard = dict.fromkeys(self.heard, now)
            before = now
            silent = self.silent(now)
            if silent is not None:
                self._end(silent)

    def silent(self, now: float) -> int | None:
        """Return the first process that has not ended and was silent for too long; None where there is none."""
        waited = (n for n, heard in self.heard.items() if self.counts[n] < _LEFT and now - heard > self.seconds)
        return next(waited, None)

    def _end(self, silent: int) -> None:
        """Print one line and end the process at once: the work itself may be waiting where nothing reaches it."""
        words = (
            f"bootdiff: error: process {silent} of {self.count} has not answered for {self.seconds:g} seconds, so "
            f"process {self.index} ends; run the same command again to go on from what is saved ({VARIABLE} sets the "
            "seconds).\n"
        )
        os.write(2, words.encode())
        os._exit(2)


def _meeting_place(first: bool, patience: timedelta) -> Any:
    """Return the store that the launcher named, by a connection of its own.

    The first process opens the store where nobody has.
    """
    import torch

    address, port = os.environ.get("MASTER_ADDR", "127.0.0.1"), launched("MASTER_PORT", PORT)
    opens = first and os.environ.get("TORCHELASTIC_USE_AGENT_STORE", "False") != "True"
    store = torch.distributed.TCPStore(
        address, port, is_master=opens, wait_for_workers=False, timeout=patience, multi_tenant=True
    )
    return torch.distributed.PrefixStore(f"bootdiff/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
