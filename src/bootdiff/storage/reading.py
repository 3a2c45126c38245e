"""Reading what others wrote: regular files only, within stated limits, and JSON and YAML that cannot explode.

Every JSON and YAML text that the package reads goes through ``parse_json`` and ``parse_yaml``. Both raise
``ValueError`` with a short reason; their callers know the file and say what to do.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bootdiff.core.errors import BootdiffError, first_line, one_line, shown

#: the most bytes of a JSON file and of a YAML file; files of prompts have limits of their own
MOST_JSON, MOST_YAML = 64 * 2**20, 2**20
#: the most levels of lists and mappings within one another
DEEPEST = 64
#: the most nodes of a YAML text, and the most values and characters of it once its aliases are written out
MOST_NODES, MOST_EXPANDED = 25_000, 2 * 2**20
#: the most digits of an integer: transformers writes 1e30 in full where a tokenizer takes texts of any length
MOST_DIGITS = 40
#: the most characters of a number in YAML, which may have underscores, a base such as 0x, or colons as in 1:30:00
MOST_NUMBER = 64


def check_regular(path: Path, noun: str = "file") -> None:
    """Refuse a path that is no regular file, or one that may not be read.

    Reading a device would never end, and a pipe would wait for a writer.

    Args:
        noun: the expected kind of file, as the message calls it.

    Raises:
        BootdiffError: if the path is no regular file or may not be read; the message says what was found.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a name with a NUL is no file's
        if os.path.lexists(path):
            raise BootdiffError(f"{path} is a link to nothing; expected a {noun}, so mend or remove it.") from None
        raise BootdiffError(f"no {noun} at {path}: expected a file {path.name}, found none; check its name.") from None
    except OSError as error:
        raise BootdiffError(f"{path} cannot be read ({error.strerror}); expected a {noun}: name another.") from error
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
        found = kinds.get(stat.S_IFMT(mode), "no file of any kind")
        raise BootdiffError(f"{path} is {found}; expected a {noun}, which is a regular file: name another.")
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise BootdiffError(
            f"{path} cannot be read ({error.strerror}); expected a {noun}: check its permissions, or name another."
        ) from error


def check_name(path: Path) -> None:
    """Refuse a path that is not UTF-8 for a file of weights: safetensors would look for it under another name.

    Raises:
        BootdiffError: if the path is not UTF-8.
    """
    if any("\ud800" <= letter <= "\udfff" for letter in str(path)):
        raise BootdiffError(f"{path} is no name in UTF-8, and weights cannot be read from there; choose another one.")


def read_text(path: Path, most: int, noun: str = "file") -> str:
    """Return a file's UTF-8 text of at most ``most`` bytes, which may begin with a byte order mark.

    Raises:
        BootdiffError: if the file is missing, no regular file or larger.
        OSError, UnicodeDecodeError: if it cannot be read.
    """
    check_regular(path, noun)
    if (size := path.stat().st_size) > most:
        raise BootdiffError(f"{path} has {size:,} bytes; expected a {noun} of at most {most:,}.")
    with path.open(encoding="utf-8-sig") as file:
        return file.read(most)


def parse_json(text: str, nan: bool = False) -> Any:
    """Return the value of a JSON text of at most ``DEEPEST`` levels, whose integers have at most 40 digits.

    Infinity is read, because the configs of stock schedulers hold it. A name may stand twice in an object only with the
    same value.

    Args:
        nan: whether NaN is read as well, as logs of bootdiff hold it.

    Raises:
        ValueError: if the text is not JSON or beyond a limit, with the reason.
    """
    try:
        value = json.loads(text, parse_int=_integer, object_pairs_hook=_mapping)
    except RecursionError:
        raise ValueError(f"recursion: its lists are nested more than {DEEPEST} deep") from None
    # A text without that many brackets, and without NaN, needs no look at what it holds.
    refused = not nan and "NaN" in text
    if refused or text.count("[") + text.count("{") > DEEPEST:
        _check_inner(value, refused)
    return value


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text whose aliases, levels and numbers are within the limits of this module.

    Raises:
        ValueError: if the text is not YAML or beyond a limit, with the reason.
    """
    from bootdiff.storage.safe_yaml import load

    try:
        return load(text)
    except RecursionError:
        raise ValueError(f"recursion: it is nested more than {DEEPEST} deep") from None
    except Exception as error:  # PyYAML meets damaged scalars with whatever Python raises, KeyError to OverflowError
        raise ValueError(one_line(" ".join(str(error).split()), 150) or type(error).__name__) from error


def check_kinds(words: Mapping[str, Any], path: Path, cure: str, **kinds: Any) -> None:
    """Refuse the content of a file of bootdiff's own if an entry is missing or of another kind than bootdiff writes.

    Args:
        kinds: the type, or the union of types, of each entry by its name; ``object`` for one that need only be there.

    Raises:
        BootdiffError: if an entry is missing or of another kind; the message names it.
    """
    for name, kind in kinds.items():
        value = words.get(name)
        if name not in words:
            raise BootdiffError(f"{path} lacks '{name}'; it is damaged, so {cure}.")
        finite = not isinstance(value, float) or value - value == 0
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool) or not finite:
            raise BootdiffError(f"{path}: '{name}' cannot be {shown(value, 60)}; it is damaged, so {cure}.")


def folder_named(output: object) -> Path:
    """Return the folder that Python names for a run.

    Raises:
        BootdiffError: if it is no path, or the empty one.
    """
    if not isinstance(output, str | os.PathLike) or not str(output):
        raise BootdiffError(f"output= expects the name of a folder, got {shown(output)}.")
    return Path(output)


def is_number(value: object) -> bool:
    """Return whether a value of a JSON text is a finite number; a truth value is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a dictionary; refuse one that gives a name two different values.

    Of two values for a name Python keeps the last and others the first, so nobody knows which one was meant.
    """
    value = dict(pairs)
    if len(value) < len(pairs):
        twice = next((name for name, inner in pairs if inner != value[name]), None)
        if twice is not None:
            raise ValueError(f"it says {shown(twice, 60)} twice; remove one of them")
    return value


def _check_inner(value: Any, nan: bool) -> None:
    """Check the depth of a value, and whether it holds NaN.

    The levels are visited one after the other, because the check must not use Python's own recursion.

    Args:
        nan: whether NaN is refused.
    """
    level = [("it", value)]
    for _ in range(DEEPEST + 1):
        if nan and (name := next((name for name, inner in level if inner != inner), None)) is not None:
            raise ValueError(f"{one_line(name, 60)} is NaN, expected a number")
        level = [(name, inner) for name, inner in level if isinstance(inner, list | dict)]
        if not level:
            return
        level = [part for name, inner in level for part in _parts(name, inner)]
    raise ValueError(f"recursion: its lists are nested more than {DEEPEST} deep")


def _parts(name: str, value: Any) -> Iterable[tuple[str, Any]]:
    return value.items() if isinstance(value, dict) else ((name, part) for part in value)


def read_config(path: Path | None) -> dict[str, Any]:
    """Return the settings in a YAML file; an empty dictionary where ``path`` is None or the file is empty.

    Raises:
        BootdiffError: if the file cannot be read or holds no mapping.
    """
    if path is None:
        return {}
    try:
        value = parse_yaml(read_text(path, MOST_YAML, "config file"))
    except (OSError, ValueError) as error:
        raise BootdiffError(f"{path} cannot be read as YAML ({first_line(error)}).") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BootdiffError(f"{path} should hold 'key: value' lines, found {shown(value)}.")
    return value
