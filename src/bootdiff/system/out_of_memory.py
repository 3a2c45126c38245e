"""Recognising that memory ran out, and telling it in one line. PyTorch, NumPy and the system each say it otherwise."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from bootdiff.core.errors import BootdiffError

_WORDS = re.compile(
    r"out of memory|(can.?t|cannot|unable to|tried to|could not|failed to) allocate|not enough memory|bad_alloc"
    r"|ALLOC_FAILED|Storage size calculation overflowed|Invalid buffer size|could not create a memory",
    re.IGNORECASE,
)
_ASKED = re.compile(r"(?:allocate|asked for|size:?)\s+(?:about\s+)?(\d[\d.]*)\s*(bytes|[KMGTPE]i?B)\b", re.IGNORECASE)


class OutOfMemoryError(BootdiffError):
    """There is not enough memory; the message says what was asked for and which setting to lower."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out, on the CPU or on a GPU."""
    if isinstance(error, MemoryError | OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # torch.OutOfMemoryError is a RuntimeError, and so is what the CPU's allocator raises.
    return isinstance(error, RuntimeError) and _WORDS.search(str(error)) is not None


def let_pass(error: BaseException) -> None:
    """Raise ``error`` again if it means that memory ran out."""
    if is_out_of_memory(error):
        raise error


@contextmanager
def told_when_out_of_memory(cure: str) -> Iterator[None]:
    """Turn a want of memory within the ``with`` block into an error of one line.

    Args:
        cure: names the setting to lower; the message ends with it.

    Raises:
        OutOfMemoryError: if memory ran out; it says what was asked for, where that is known, and the cure.
    """
    try:
        yield
    except OutOfMemoryError:
        raise
    except (MemoryError, OSError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(f"out of memory{_asked(error)}; {cure}.") from error


def _asked(error: BaseException) -> str:
    """Return how much memory the last request was for, as " (2 GiB more were asked for)", or an empty string."""
    found = _ASKED.search(str(error))
    if found is None:
        return ""
    amount, unit = found.group(1).rstrip("."), found.group(2)
    if unit.lower() != "bytes":
        return f" ({amount} {unit} more were asked for)"
    return f" ({float(amount) / 2**30:.3g} GiB more were asked for)"
