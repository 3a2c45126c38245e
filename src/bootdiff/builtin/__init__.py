"""What ships with the package: the ``digits`` teacher, its feature network and its reference statistics."""

from __future__ import annotations

from pathlib import Path

BUILTIN_TEACHERS = ("digits",)


def builtin_folder(name: str) -> Path:
    """The folder of a builtin's files."""
    return Path(__file__).parent / name
