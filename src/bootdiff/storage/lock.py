"""The lock of a folder into which one process at a time writes for long: ``with lock(folder):``."""

from __future__ import annotations

import json
import os
import socket
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from bootdiff.core.errors import BootdiffError
from bootdiff.storage.reading import parse_json
from bootdiff.storage.whole import is_running, remove_leftovers, writable
from bootdiff.system.invoked import command
from bootdiff.system.progress import is_first_process

try:
    import fcntl
except ImportError:  # not a POSIX system: then the lock goes by the process that its file names
    fcntl = None  # type: ignore[assignment]

#: the name of a hidden file that is there while the folder is in use; one that a kill left behind stops nobody
LOCK = ".lock"
#: the folders that this process holds, with the identifier of the thread that holds each
_held: dict[Path, int] = {}


@contextmanager
def lock(folder: Path | str, patience: float = 0.0) -> Iterator[None]:
    """Let this process be the only one that writes into a folder within the ``with`` block.

    The folder is made where it does not exist, and removed again if it stays empty. The system lets go of the lock when
    the process ends, however it does. Within a lock the same thread may ask for it again. Of several processes under
    torchrun the first one locks for all.

    Args:
        patience: the number of seconds to wait for another process that is about to be done.

    Raises:
        BootdiffError: if another process is at work in the folder; the message names that process and its host.
    """
    folder = Path(folder).absolute()
    key = folder.resolve()
    if not is_first_process() or _held.get(key) == threading.get_ident():
        yield
        return
    if key in _held:
        raise BootdiffError(f"{folder} is in use by another thread of this process; choose another folder.")
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    with writable(folder / LOCK):
        folder.mkdir(parents=True, exist_ok=True)
        handle = _acquire(folder, time.monotonic() + patience)
    _held[key] = threading.get_ident()
    try:
        yield
    finally:
        del _held[key]
        with suppress(OSError):
            (folder / LOCK).unlink()
        os.close(handle)
        with suppress(OSError):  # something was written
            for parent in made:
                parent.rmdir()


def tidy(folder: Path) -> None:
    """Remove the temporary files and locks of killed processes, in and below a folder that this process holds."""
    remove_leftovers(folder)
    for path in folder.rglob(LOCK):
        if path.parent != folder:
            with suppress(BootdiffError, OSError), lock(path.parent):  # unless it is in use
                pass


def _acquire(folder: Path, until: float) -> int:
    """Return the handle of the open lock file, once this process holds the lock."""
    path = folder / LOCK
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        ours = _take(handle)
        # Whoever held it may have removed the file between the two calls: then it is nobody's.
        if ours and _same(handle, path):
            os.truncate(handle, 0)
            os.write(handle, json.dumps(_this_process()).encode())
            return handle
        holder = _read(handle)
        os.close(handle)
        if not ours and time.monotonic() >= until:
            _refuse(folder, holder)
        if not ours:
            time.sleep(0.05)


def _take(handle: int) -> bool:
    """Try to lock an open file, and return whether that succeeded.

    Where the file system knows no locks, it succeeds if the process that the file names does not run any more.
    """
    if fcntl is not None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        except OSError:
            pass
    holder = _read(handle)
    if not holder or (holder["host"], holder["pid"]) == (socket.gethostname(), os.getpid()):
        return True
    return holder["host"] == socket.gethostname() and not is_running(holder["pid"])


def _same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _this_process() -> dict[str, Any]:
    told = {"command": textwrap.shorten(command(), 80, placeholder=" …"), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    return {"host": socket.gethostname(), "pid": os.getpid(), **told}


def _read(handle: int) -> Mapping[str, Any]:
    """Return what the lock file says of its writer; an empty mapping where it cannot be read."""
    try:
        words = parse_json(os.pread(handle, 4096, 0).decode())
        return {**words, "pid": int(words["pid"]), "host": str(words["host"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _words(holder: Mapping[str, Any]) -> str:
    if not holder:
        return "another process"
    return f"process {holder['pid']} on host {holder['host'][:60]}"


def _refuse(folder: Path, holder: Mapping[str, Any]) -> NoReturn:
    since = f", since {holder['since']}" if "since" in holder else ""
    raise BootdiffError(
        f"{str(folder)[-120:]} is in use by {_words(holder)}{since}; wait until it ends, or choose another --output."
    )
