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
        end, words = "" if message.endswith("?") else ".", ["bootdiff"]
        if context is not None:
            # What a command misses is said before there is a context of its own.
            words = [context.command_path, *([context.invoked_subcommand] if context.invoked_subcommand else [])]
        told = f"{message[:1].lower()}{message[1:]}{end} '{' '.join(words)} --help' lists its arguments and options."
        raise BootdiffError(one_line(told)) from error
