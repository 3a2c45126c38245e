"""Notes on what a command does differently from what may have been expected: told once, and kept for the run's file."""

from __future__ import annotations

import sys

from bootdiff.core.errors import one_line
from bootdiff.system.progress import is_first_process

#: the notes since the command began, by their keys
_SAID: dict[str, str] = {}


def note(text: str, key: str | None = None) -> None:
    """Print a note on standard error, once a command and by the first process only.

    Args:
        key: names notes that are the same to a reader although their words differ, as in a file's name; only the first
            of them is printed.
    """
    words = one_line(text)
    if (key or words) in _SAID:
        return
    _SAID[key or words] = words
    if is_first_process():
        print(f"bootdiff: note: {words}", file=sys.stderr, flush=True)


def said() -> list[str]:
    """Return the notes that were made since the command began, in their order."""
    return list(_SAID.values())


def begin() -> None:
    """Forget the notes of an earlier command in this process."""
    _SAID.clear()
