"""What installed packages of others bring, by groups of entry points: adapters, methods and metrics."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from bootdiff.core.errors import BootdiffError, first_line, shown


def named(group: str) -> dict[str, metadata.EntryPoint]:
    """Return the entry points of a group by name; nothing is imported."""
    return {entry.name: entry for entry in metadata.entry_points(group=group)}


def loaded(entry: metadata.EntryPoint, what: str) -> Any:
    """Import what an entry point names, and return it.

    Args:
        what: what it should be, for the message.

    Raises:
        BootdiffError: if it cannot be imported; the message names it.
    """
    if entry.pattern.match(entry.value) is None:
        raise BootdiffError(
            f"the {what} {entry.name} cannot be imported: its entry point should name a place such as "
            f"package.module:Class, got {shown(entry.value)}."
        )
    try:
        return entry.load()
    except SystemExit as error:
        raise BootdiffError(f"the {what} {entry.value} cannot be imported (it ends the program).") from error
    except Exception as error:  # somebody else's module may raise anything
        raise BootdiffError(
            f"the {what} {entry.value} cannot be imported ({first_line(error).removesuffix('.')})."
        ) from error
