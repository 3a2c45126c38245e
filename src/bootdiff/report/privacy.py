"""Keeping places out of a report, which may be passed on: it names files, not where they lay on a machine.

The paths themselves stay in the run's ``config.yaml`` and ``meta.json``.
"""

from __future__ import annotations

import re
import shlex
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

#: the start of a path that is absolute, or goes from the home folder or a folder above, at the start of a value
_START = re.compile(r"(/|~[/\\]|\.\.[/\\]|[A-Za-z]:[\\/]|\\\\)(?=[^\s/])")
#: such a path within a sentence, up to its last letter
_WITHIN = re.compile(r"(?<![\w./\\:~-])(?:/|~/|(?:\.\./)+|[A-Za-z]:[\\/])[^\s'\",;()<>|]*[\w/\\]")


def without_place(value: str) -> str:
    """Return the last part of a path that says where it lies, and any other text as it is."""
    if not _START.match(value):
        return value
    kind = PureWindowsPath if "\\" in value else PurePosixPath
    return kind(value).name or value


def command_without_places(command: str) -> str:
    """Return a command line whose paths are without places, also those after an equals sign."""
    try:
        words = shlex.split(command)
    except ValueError:  # edited by hand
        return sentence_without_places(command)
    return shlex.join(_word(word) for word in words)


def sentence_without_places(text: str) -> str:
    """Return a sentence whose paths are without places."""
    return _WITHIN.sub(lambda found: without_place(found[0]), text)


def value_without_places(value: Any) -> Any:
    """Return a setting's value whose paths are without places, also those in a list."""
    if isinstance(value, str):
        return without_place(value)
    return [value_without_places(part) for part in value] if isinstance(value, list) else value


def _word(word: str) -> str:
    key, equals, value = word.partition("=")
    return f"{key}={without_place(value)}" if equals else without_place(word)
