"""Errors that a user can act on.

Each message is one line: what was expected, what came, what to do. The command line prints it and exits
with code 2; from Python it is an ordinary exception.
"""

from __future__ import annotations

import difflib
import os
import re
import reprlib
import traceback
from collections.abc import Iterable

#: matches a long path; its group is the path's last two parts
_LONG_PATH = re.compile(r"(?<!\S)/[^\s:;,()'\"]{20,}?(/[^\s/:;,()'\"]{1,100}/[^\s/:;,()'\"]{1,100}/?)(?![^\s:;,()'\"])")
#: matches what a terminal would obey or swallow, and no reader sees
_UNSEEN = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")
#: the most characters of a message, and of a value that a message quotes
LONGEST, QUOTED = 300, 80


class BootdiffError(Exception):
    """Something the user can mend: bad input, a missing file, an unsupported model.

    The message is kept to one line of at most 300 characters, whatever was put into it.

    Args:
        command: a command for the user to type, which is never cut; it stands at the message's end.
    """

    def __init__(self, message: object = "", command: str = "") -> None:
        self.message, self.command = one_line(str(message)), command
        super().__init__(f"{self.message} {command}" if command else self.message)

    def within(self, what: object) -> BootdiffError:
        """Return the same error with ``what``, the thing that it happened in, before its message."""
        return BootdiffError(f"{what}: {self.message}", self.command)


class NonFiniteLossError(BootdiffError):
    """Training met a loss that is not finite; the message names the step and the saved batch."""


class Interrupted(BaseException):
    """Training was interrupted (Ctrl-C, SIGTERM) after its state was saved.

    Like ``KeyboardInterrupt`` it is no ``Exception``, so that no handler of errors takes it for one and goes on.
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known word closest to ``word``, or an empty string."""
    close = difflib.get_close_matches(word[:200], list(known), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def choose(word: str, known: Iterable[str], what: str) -> str:
    """Return ``word`` if it is one of ``known``.

    Raises:
        BootdiffError: if it is none of them; the message lists the known words and the nearest one.
    """
    known = sorted(known)
    if word not in known:
        raise BootdiffError(
            f"{what} {shown(word)} is not known; expected one of {', '.join(known)}.{nearest(word, known)}"
        )
    return word


def first_line(error: BaseException) -> str:
    """Return an error's message as one line of at most 200 characters, or its class's name where it has none."""
    return one_line(str(error), 200) or type(error).__name__


def one_line(text: str, most: int = LONGEST) -> str:
    """Return a text on one line of at most ``most`` characters, in which control characters are written as ``\\x00``.

    In a text that is too long, paths first lose their beginnings; if that is not enough, the text loses its middle.
    What is left still says what is wrong and what to do.
    """
    if len(text) > 100 * most:  # nobody's words: its line breaks need not be looked for
        text = f"{text[: 10 * most]} … {text[-10 * most :]}"
    if any(mark in text for mark in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"):
        text = " ".join(text.split())
    text = _UNSEEN.sub(lambda sign: f"\\x{ord(sign[0]):02x}", text)
    if len(text) <= most:
        return text
    text = _LONG_PATH.sub("…\\1", text)
    if len(text) <= most:
        return text
    tail = (most - 3) // 3
    return f"{text[: most - 3 - tail]} … {text[-tail:]}"


def shown(value: object, most: int = QUOTED) -> str:
    """Return a value as a message quotes it: as Python writes it, on one line, cut to ``most`` characters."""
    try:
        text = _SHORT.repr(value)
    except Exception:  # an integer of too many digits, a foreign class
        text = f"a {type(value).__name__}"
    return text if len(text) <= most else f"{text[: most - 2]} …"


def _short() -> reprlib.Repr:
    short = reprlib.Repr()
    short.maxlevel = 4
    short.maxstring = short.maxlong = short.maxother = QUOTED
    short.maxlist = short.maxtuple = short.maxdict = short.maxset = short.maxfrozenset = 20
    return short


_SHORT = _short()


def show_traceback() -> None:
    """Show where the error that is being handled came from, if BOOTDIFF_DEBUG=1 in the environment asks for it."""
    if os.environ.get("BOOTDIFF_DEBUG", "") not in ("", "0"):
        traceback.print_exc()
