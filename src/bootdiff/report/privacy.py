"""A report is passed on: it says what files are called, not where they lay on the machine that made it.

The paths themselves stay in the run's ``config.yaml`` and ``meta.json``.
"""

from __future__ import annotations

import re
import shlex
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

#: an absolute path, one from the home folder or from a folder above, as the beginning of a word or of a value
_START = re.compile(r"(/|~[/\\]|\.\.[/\\]|[A-Za-z]:[\\/]|\\\\)(?=[^\s/])")
#: such a path within a sentence, to its last letter
_WITHIN = re.compile(r"(?<![\w./\\:~-])(?:/|~/|(?:\.\./)+|[A-Za-z]:[\\/])[^\s'\",;()<>|]*[\w/\\]")


def without_place(value: str) -> str:
    """The last part of a path that says where it lies; any other text as it is."""
    if not _START.match(value):
        return value
    kind = PureWindowsPath if "\\" in value else PurePosixPath
    return kind(value).name or value


def command_without_places(command: str) -> str:
    """A command line whose words are without places, those after an equals sign too."""
    try:
        words = shlex.split(command)
    except ValueError:  # edited by hand
        return sentence_without_places(command)
    return shlex.join(_word(word) for word in words)


def sentence_without_places(text: str) -> str:
    """A sentence whose paths are without places."""
    return _WITHIN.sub(lambda found: without_place(found[0]), text)


def value_without_places(value: Any) -> Any:
    """A setting's value: a path without its place, also within a list."""
    if isinstance(value, str):
        return without_place(value)
    return [value_without_places(part) for part in value] if isinstance(value, list) else value


def _word(word: str) -> str:
    key, equals, value = word.partition("=")
    return f"{key}={without_place(value)}" if equals else without_place(word)
