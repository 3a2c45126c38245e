"""What was typed to make this process do what it does, as a line for a shell."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class _Invoked:
    by_command_line = False


@contextmanager
def by_command_line() -> Iterator[None]:
    """Within the ``with`` block, what this process does is a command of bootdiff."""
    _Invoked.by_command_line = True
    try:
        yield
    finally:
        _Invoked.by_command_line = False


def command() -> str:
    """Return the command that the user typed; for a program that uses bootdiff, the program's own."""
    program, words = sys.argv[0], sys.argv[1:]
    if _Invoked.by_command_line:
        return shlex.join(["bootdiff", *words])
    interactive = hasattr(sys, "ps1") or "ipykernel" in sys.modules
    if Path(program).is_file() and not interactive:
        return shlex.join(["python", program, *words])
    return "# made by an interactive session of Python; see config.yaml for the settings"
