"""What a command does differently from what may have been expected, said once and kept for the run's file."""

from __future__ import annotations

import sys

from bootdiff.core.errors import one_line
from bootdiff.system.progress import is_first_process

#: what was said since the command began, by its key
_SAID: dict[str, str] = {}


def note(text: str, key: str | None = None) -> None:
    """Say something on standard error, once a command, by the first process only.

    Args:
        key: of notes that are the same to a reader though they name other files.
    """
    words = one_line(text)
    if (key or words) in _SAID:
        return
    _SAID[key or words] = words
    if is_first_process():
        print(f"bootdiff: note: {words}", file=sys.stderr, flush=True)


def said() -> list[str]:
    """What was said since the command began."""
    return list(_SAID.values())


def begin() -> None:
    """Forget what an earlier command in this process said."""
    _SAID.clear()
