"""Standard output and standard error that nobody reads any more: what is written to them is lost, and nothing fails."""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

#: the errors of a pipe whose reader has gone (``| head``) and of a terminal that has gone
_NOBODY = (errno.EPIPE, errno.EIO)


class _Unheard(io.FileIO):
    """A file descriptor to which writing succeeds even when nobody reads it."""

    def __init__(self, descriptor: int, forgives: tuple[int, ...]) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.forgives, self.told = forgives, False

    def write(self, data) -> int:  # type: ignore[no-untyped-def]
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in self.forgives and not self.told:
                self.told = True  # what is still waiting to be written must not fail again at the very end
                raise
            return memoryview(data).nbytes


@contextmanager
def unheard() -> Iterator[None]:
    """Let no broken pipe and no closed terminal end the program within the ``with`` block.

    A full disk behind standard error, where that is a log file, ends nothing either. Behind standard output it is an
    error, because what a command prints there may be its result.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _guarded(sys.stdout, _NOBODY), _guarded(sys.stderr, (*_NOBODY, errno.ENOSPC))
    try:
        yield
    finally:
        written = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = before
        for stream in written:
            with suppress(ValueError, AttributeError):  # closed on the way, or never there
                stream.flush()


def _guarded(stream: TextIO, forgives: tuple[int, ...]) -> TextIO:
    """Return the same stream, in the same encoding, whose writing does not fail with one of the errors ``forgives``.

    A stream that is no file of the system's, as in a notebook, comes back as it is.
    """
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # PYTHONUNBUFFERED leaves the buffer out
    if not isinstance(stream, io.TextIOWrapper) or not isinstance(raw, io.FileIO) or isinstance(raw, _Unheard):
        return stream
    with suppress(OSError):
        stream.flush()
    heard = _Unheard(stream.fileno(), forgives)
    return io.TextIOWrapper(
        heard if raw is buffer else io.BufferedWriter(heard),  # type: ignore[arg-type,type-var]
        stream.encoding,
        stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
