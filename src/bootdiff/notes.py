"""What is done otherwise than asked is said: on the terminal, and in the file of the results."""

from __future__ import annotations

import sys

from bootdiff.progress import is_first_process

_said: list[str] = []


def note(words: str) -> None:
    """Say that something is left out or done in another way, and remember it for the file."""
    if is_first_process():
        print(f"bootdiff: note: {words}", file=sys.stderr)
    _said.append(words)


def said_since() -> list[str]:
    """What was noted since this was last asked, each note once."""
    notes = list(dict.fromkeys(_said))
    _said.clear()
    return notes
