"""Settings of a run: what YAML files and ``--set key=value`` may say, and how settings are described."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from bootdiff.config.base import Settings
from bootdiff.config.mixins import Optimiser, Passes, Records
from bootdiff.core.errors import BootdiffError, first_line, shown
from bootdiff.storage.reading import parse_yaml

S = TypeVar("S", bound=Settings)

#: the most parts of a setting's name: stages, a setting, and the names within it, with points between them
MOST_PARTS = 4


class TrainingSettings(Records, Passes, Optimiser):
    """The settings that every training run has, whatever its method."""


def read_assignments(assignments: list[str]) -> dict[str, Any]:
    """Return the settings in ``key=value`` words, whose values are read as YAML.

    A word ``stage.key=value`` is a setting of an earlier stage.

    Raises:
        BootdiffError: for a word without ``=``, or a value that is not YAML.
    """
    values: dict[str, Any] = {}
    for word in assignments:
        key, equals, value = word.partition("=")
        parts = [part.strip() for part in key.split(".")]
        if not equals or not all(parts) or len(parts) > MOST_PARTS:
            raise BootdiffError(f"--set expects key=value, or stage.key=value, got {shown(word)}.")
        try:
            read = parse_yaml(value)
        except ValueError as error:
            raise BootdiffError(f"--set {shown(key)}: its value cannot be read ({first_line(error)}).") from error
        _put(values, parts, _number(read))
    return values


def read_command(assignments: list[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a command line says: its ``--set`` words and its options, which must not contradict each other.

    Args:
        options: the options that were given, by the names of their settings.

    Raises:
        BootdiffError: if a word and an option give the same setting different values.
    """
    values = read_assignments(assignments)
    for key, value in options.items():
        if key in values and values[key] != value:
            raise BootdiffError(
                f"--{key.replace('_', '-')} gives {shown(value)} and --set {key} gives {shown(values[key])}; both are "
                "the same setting, so leave one out."
            )
    return {**values, **options}


def make_settings(kind: type[S], *layers: Mapping[str, Any]) -> S:
    """Make settings from layers of values; later layers win, as a command line does over a file.

    Raises:
        BootdiffError: for an unknown key (naming the nearest) or a value out of range (naming key, value and rule).
    """
    return kind(**layered(*layers))


def layered(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of several layers together; later ones win, and those of a stage add up."""
    values: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            there = values.get(str(key))
            if isinstance(there, dict) and isinstance(value, Mapping):
                value = {**there, **value}
            values[str(key)] = _number(value)
    return values


def describe(kind: type[Settings]) -> list[tuple[str, str, str]]:
    """Return (key, default, meaning) of every setting of a class."""
    rows = []
    for name, entry in kind.model_fields.items():
        choices = getattr(entry.annotation, "__args__", ())
        words = f" ({', '.join(choices)})" if choices and all(isinstance(c, str) for c in choices) else ""
        own = "teacher's" if name in ("t_min", "t_max") else "none"
        value = entry.get_default(call_default_factory=True)
        default = own if value is None or value == {} else f"{value}"
        rows.append((name, default, f"{entry.description or ''}{words}".strip()))
    return rows


def _put(values: dict[str, Any], path: list[str], value: Any) -> None:
    """Set a value in nested dictionaries, along the names in ``path``.

    Raises:
        BootdiffError: if one assignment makes a value of what another makes a stage, or gives another value.
    """
    for part in path[:-1]:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise BootdiffError(
                f"--set gives {shown(part)} a value and {shown('.'.join(path))} one, too; leave one out."
            )
    if isinstance(values.get(path[-1]), dict) and not isinstance(value, dict):
        raise BootdiffError(f"--set gives {shown('.'.join(path))} a value and its parts others; leave one out.")
    if path[-1] in values and values[path[-1]] != value:
        both = f"{shown(values[path[-1]])} and {shown(value)}"
        raise BootdiffError(f"--set gives {shown('.'.join(path))} the values {both}; leave one out.")
    values[path[-1]] = value


def _number(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _number(inner) for key, inner in value.items()}
    # YAML 1.1 reads 1e-4, without a dot, as a string.
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
