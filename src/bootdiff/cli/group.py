"""Usage errors of the command line, which quote what was typed; they are cut to a line like every other message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from typer.core import TyperGroup

from bootdiff.core.errors import one_line


class Group(TyperGroup):
    """A group of commands whose usage errors are no longer than one of our lines."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Read the words before the command's name, and return their context."""
        with _cut():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Read the command's own words, and run it."""
        with _cut():
            return super().invoke(ctx)


@contextmanager
def _cut() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # What click raises of words that it cannot read; it writes the message later.
        if hasattr(error, "format_message") and hasattr(error, "message"):
            error.message = one_line(str(error.message))
        raise
