"""Out of memory, told in one line. PyTorch, NumPy and the system each have their own way of saying it."""

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
    """Whether an error means that memory ran out, on the CPU or on a GPU."""
    if isinstance(error, MemoryError | OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # torch.OutOfMemoryError is a RuntimeError, and so is what the CPU's allocator raises.
    return isinstance(error, RuntimeError) and _WORDS.search(str(error)) is not None


def let_pass(error: BaseException) -> None:
    """Raise ``error`` again if memory ran out: to be asked first where any error means that a file is damaged."""
    if is_out_of_memory(error):
        raise error


@contextmanager
def told_when_out_of_memory(cure: str) -> Iterator[None]:
    """Within it, a want of memory is an error of one line.

    Args:
        cure: which setting to lower, as the end of a sentence.

    Raises:
        OutOfMemoryError: saying what was asked for, where that is known, and the cure.
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
    """How much the last request was for, where the error says so."""
    found = _ASKED.search(str(error))
    if found is None:
        return ""
    amount, unit = found.group(1).rstrip("."), found.group(2)
    if unit.lower() != "bytes":
        return f" ({amount} {unit} more were asked for)"
    return f" ({float(amount) / 2**30:.3g} GiB more were asked for)"
