"""Usage errors of the command line, which become one line like every other message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from typer.core import TyperGroup

from bootdiff.core.errors import BootdiffError, one_line


class Group(TyperGroup):
    """A group of commands whose usage errors are ours."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Read the words before the command's name, and return their context."""
        with _ours():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Read the command's own words, and run it."""
        with _ours():
            return super().invoke(ctx)


@contextmanager
def _ours() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # What click raises of words that it cannot read. Without any words it shows the help, and that stays.
        if not hasattr(error, "format_message") or type(error).__name__ == "NoArgsIsHelpError":
            raise
        message, context = error.format_message().rstrip("."), getattr(error, "ctx", None)
        command, end = "bootdiff" if context is None else context.command_path, "" if message.endswith("?") else "."
        told = f"{message[:1].lower()}{message[1:]}{end} '{command} --help' lists what there is."
        raise BootdiffError(one_line(told)) from error
