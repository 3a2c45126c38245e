"""Processes that are killed at a chosen moment, or that hold a folder: forked from this one, so they start at once."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from bootdiff.storage.lock import lock

#: what Python reports before it changes something on the disk
CHANGES = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree", "ctypes.call_function"}


def forked(call: Callable[[], object]) -> int:
    """The status of a child process that makes a call: 0, 1 where it raised, or minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            call()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_before(change: int, call: Callable[[], object], within: Path, changes: Collection[str] = CHANGES) -> bool:
    """Make a call in a child that is killed before its n-th change below a folder; whether it came to that."""

    def doomed() -> None:
        left = change

        def hook(event: str, words: tuple[object, ...]) -> None:
            nonlocal left
            if event in changes and (event.startswith("ctypes") or str(words[0]).startswith(str(within))):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        call()

    status = forked(doomed)
    assert status in (0, -signal.SIGKILL)
    return status != 0


@contextmanager
def held(folder: Path) -> Iterator[int]:
    """Another process, of this number, that works in a folder."""
    (told, tell), (wait, go) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go)
        with lock(folder):
            os.write(tell, b"x")
            os.read(wait, 1)
        os._exit(0)
    os.close(tell)
    os.read(told, 1)
    try:
        yield child
    finally:
        for handle in (go, wait, told):
            os.close(handle)
        os.waitpid(child, 0)


def dead() -> int:
    """The number of a process that has ended."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return child


def hidden(folder: Path) -> list[Path]:
    """What a listing does not show."""
    return sorted(folder.rglob(".*"))
