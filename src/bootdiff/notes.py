"""Notes: what was done otherwise than the files say, told once on standard error and kept for ``meta.json``."""

from __future__ import annotations

import sys

from bootdiff.progress import is_first_process

#: in the order in which they were told
said: list[str] = []


def note(text: str) -> None:
    """Tell the user, once."""
    if text not in said:
        said.append(text)
        if is_first_process():
            print(f"bootdiff: note: {text}", file=sys.stderr)
