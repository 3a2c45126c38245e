"""Files and folders that are there whole or not at all, whenever the process is killed or the power fails.

Whatever is written is made aside under a hidden name, synced to the disk, and renamed into place; then the folder that
holds the name is synced. A folder takes another's place in one step (``renameat2``) where the system can do that. The
hidden name says which process of which host it belongs to, so that whoever writes there next can tell what a kill has
left from what another process is writing.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO

from bootdiff.core.errors import BootdiffError, first_line

#: matches a hidden name, ``.NAME.bootdiff-HOST-N.PID.tmp.SUFFIX``; earlier versions had no host in it
_LEFTOVER = re.compile(r"\.(?P<name>.+?)(\.bootdiff-(?P<host>[^.]+)-\d+)?\.(?P<pid>\d+)\.(?P<kind>tmp|old)(\..+)?")
#: how many letters of a name its hidden name keeps: a file system takes 255 bytes, and a letter may have four
_KEPT = 40
#: two values for renameat2: paths are relative to the working directory (AT_FDCWD); the two names change places
_HERE, _EXCHANGE = -100, 2
#: the temporary paths that this process is writing now
_writing: set[Path] = set()
_numbers = count()


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` with a temporary path beside ``path``, then put the file or folder that it made into place.

    Raises:
        BootdiffError: if the disk refuses; what stood at ``path`` is untouched and the temporary is removed.
    """
    temporary = _aside(path)
    with writable(path), _being_written(temporary):
        _prepare(path)
        write(temporary)
        if path.is_dir() and not temporary.is_dir():
            raise BootdiffError(f"{path} is a folder; expected a file to write, so choose another name.")
        _put(temporary, path)


def write_parts(folder: Path, write: Callable[[Path], object], last: str) -> None:
    """Let ``write`` fill a temporary folder, then move its parts into ``folder`` one by one, ``last`` at the end.

    Everything else that ``folder`` holds stays. A folder that has the part ``last`` is whole.

    Raises:
        BootdiffError: if the disk refuses.
    """
    temporary = _aside(folder / "parts")
    with writable(folder), _being_written(temporary):
        _prepare(folder / last)
        write(temporary)
        names = sorted(part.name for part in temporary.iterdir() if part.name != last)
        for name in (*names, last):
            _put(temporary / name, folder / name)


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turn what the disk has against a file within the ``with`` block, such as being full, into an error of one line.

    Raises:
        BootdiffError: in place of an ``OSError``; also for a path below ``~``, which only a shell replaces by the home
            folder.
    """
    if path.parts[:1] == ("~",):
        raise BootdiffError(f"{path} would be a folder that is called ~ here; write the path out, or leave quotes out.")
    try:
        yield
    except Exception as error:
        # safetensors reports a full disk as its own exception, not as an OSError.
        if not isinstance(error, OSError) and type(error).__name__ != "SafetensorError":
            raise
        file = next((parent for parent in path.parents if parent.is_file()), None)
        if isinstance(error, NotADirectoryError | FileExistsError) and file is not None:
            raise BootdiffError(f"{path} cannot be written: {file} is a file; choose another place.") from error
        why = (isinstance(error, OSError) and error.strerror) or first_line(error)
        raise BootdiffError(f"{path} cannot be written ({why}); what was there before is unchanged.") from error


def remove(path: Path) -> None:
    """Remove a file or a folder if it exists; a folder loses its name first, so that nobody sees it half removed."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    if _LEFTOVER.fullmatch(path.name):
        shutil.rmtree(path)
        return
    aside = _aside(path)
    with _being_written(aside):
        os.replace(path, aside)


def remove_leftovers(folder: Path, alone: bool = True) -> None:
    """Remove what killed processes left in a folder and below it, and bring back what they had moved away.

    Args:
        alone: whether this process holds the folder's lock, so that no process of another host is writing there.
    """
    for path in _hidden(folder):
        with suppress(OSError):  # a folder of somebody else's
            _clear(path, alone)


def has_leftovers(folder: Path) -> bool:
    """Return whether there is anything in or below a folder for ``remove_leftovers`` to look at."""
    return any(True for _ in _hidden(folder))


def sync(path: Path) -> None:
    """Wait until a file, or a folder with all that is in it, is on the disk."""
    if path.is_symlink():
        return
    if path.is_dir():
        for entry in path.iterdir():
            sync(entry)
    _sync_one(path)


def reserve(file: BinaryIO, size: int) -> None:
    """Give an open file its whole size of ``size`` bytes on the disk at once, so that a full disk is told now.

    Raises:
        OSError: if the disk has not enough room.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)


def is_running(pid: int) -> bool:
    """Return whether the process with this number runs on this host."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        pass
    return True


def this_host() -> str:
    """Return this machine's name as it stands in hidden names and locks."""
    return re.sub("[^A-Za-z0-9_-]", "_", socket.gethostname())[:_KEPT] or "unknown"


def _aside(path: Path) -> Path:
    """Return a hidden path beside ``path`` that nothing else has; its suffix stays, because writers go by it."""
    name = f".{path.stem[:_KEPT]}.bootdiff-{this_host()}-{next(_numbers)}.{os.getpid()}.tmp"
    return path.with_name(name + path.suffix[:_KEPT])


@contextmanager
def _being_written(temporary: Path) -> Iterator[None]:
    """Keep a temporary path from being taken for a leftover within the ``with`` block, and remove it at the end.

    Folders that were made for it and are empty at the end go with it.
    """
    new = [parent for parent in temporary.parents if not parent.exists()]
    _writing.add(temporary)
    try:
        yield
    finally:
        with suppress(OSError):  # where it could not even be looked for
            remove(temporary)
        _writing.discard(temporary)
        for parent in new:
            with suppress(OSError):  # it holds what was written
                parent.rmdir()


def _within_another(path: Path) -> bool:
    """Return whether ``path`` is part of something that is being written, and will be synced with that."""
    return any(parent in _writing for parent in path.parents)


def _hidden(folder: Path) -> Iterator[Path]:
    """Yield everything in and below a folder that has a temporary's name."""
    for here, folders, files in os.walk(folder):
        hidden = [name for name in (*folders, *files) if _LEFTOVER.fullmatch(name)]
        folders[:] = [name for name in folders if name not in hidden]
        yield from (Path(here, name) for name in hidden)


def _prepare(path: Path) -> None:
    """Make the folder of ``path``, and clear what a killed process left in it."""
    if _within_another(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return
    new = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    for folder in new:
        _sync_one(folder.parent)
    try:
        names = os.listdir(path.parent)
    except PermissionError:
        return
    for name, match in ((name, match) for name in names if (match := _LEFTOVER.fullmatch(name))):
        # Without a host in it a name may be another program's, unless it is that of this very file.
        if match["host"] or match["name"] in (path.stem, path.name):
            with suppress(OSError):
                _clear(path.with_name(name))


def _clear(path: Path, alone: bool = False) -> None:
    """Remove a leftover, or bring it back where it is a folder's only copy; what is being written stays."""
    match = _LEFTOVER.fullmatch(path.name)
    if match is None or path in _writing:
        return
    pid, elsewhere = int(match["pid"]), match["host"] not in (None, this_host())
    # A name with this process's own number is of an earlier one: containers begin to count anew.
    if not alone if elsewhere else pid != os.getpid() and is_running(pid):
        return
    target = path.with_name(match["name"])
    if match["kind"] == "old" and not target.exists():
        os.replace(path, target)
    else:
        remove(path)


def _put(temporary: Path, path: Path) -> None:
    """Rename a file or folder into place once it is on the disk, and then remove what it replaces."""
    top = not _within_another(path)
    if top:
        sync(temporary)
    if not path.is_dir():
        os.replace(temporary, path)
    elif not _exchange(temporary, path):
        _replace(temporary, path)
    if top:
        _sync_one(path.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Let two names change places in one step; return False where the system or the file system cannot or refuses."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    return rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0


def _replace(temporary: Path, path: Path) -> None:
    """Put one folder in another's place in two steps.

    After a kill between the steps the next writer brings the old folder back.
    """
    old = path.with_name(f".{path.name}.bootdiff-{this_host()}-{next(_numbers)}.{os.getpid()}.old")
    _writing.add(old)
    try:
        os.replace(path, old)
        os.replace(temporary, path)
    finally:
        if old.exists() and not path.exists():
            os.replace(old, path)
        _writing.discard(old)
    _sync_one(path.parent)
    remove(old)


def _sync_one(path: Path) -> None:
    """Wait until one file, or a folder's list of names, is on the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder that may be written to and not read
        return
    try:
        os.fsync(handle)
    except OSError as error:
        # Some file systems sync a folder's names by themselves, and refuse to be asked.
        if not path.is_dir() or error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)
