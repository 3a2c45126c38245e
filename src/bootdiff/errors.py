"""Errors that a user can act on.

Each message is one line: what was expected, what came, what to do. The command line prints it and exits
with code 2; from Python it is an ordinary exception.
"""

from __future__ import annotations

import difflib
import os
import textwrap
import traceback
from collections.abc import Iterable


class BootdiffError(Exception):
    """Something the user can mend: bad input, a missing file, an unsupported model."""


class NonFiniteLossError(BootdiffError):
    """Training met a loss that is not finite; the message names the step and the saved batch."""


class Interrupted(BaseException):
    """Training was interrupted (Ctrl-C, SIGTERM) after its state was saved.

    Like ``KeyboardInterrupt`` it is no ``Exception``, so that no handler of errors takes it for one and goes on.
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known word closest to ``word``, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def choose(word: str, known: Iterable[str], what: str) -> str:
    """Return ``word`` if it is one of ``known``.

    Raises:
        BootdiffError: otherwise; the message lists the known words and the nearest one.
    """
    known = sorted(known)
    if word not in known:
        raise BootdiffError(f"{what} '{word}' is not known; expected one of {', '.join(known)}.{nearest(word, known)}")
    return word


def first_line(error: BaseException) -> str:
    """An error's words as one line, not too long."""
    return textwrap.shorten(str(error), 200, placeholder=" …") or type(error).__name__


def show_traceback() -> None:
    """Show where the error that is being handled came from, if BOOTDIFF_DEBUG=1 in the environment asks for it."""
    if os.environ.get("BOOTDIFF_DEBUG", "") not in ("", "0"):
        traceback.print_exc()
