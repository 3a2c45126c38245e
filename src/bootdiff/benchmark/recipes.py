"""The settings with which each method enters a benchmark; how they were chosen is in docs/benchmark.md."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from bootdiff.core.errors import BootdiffError, choose
from bootdiff.methods.registry import find_method, names
from bootdiff.storage.reading import read_config

RECIPES = Path(str(files("bootdiff") / "benchmark" / "recipes"))


def shipped() -> list[str]:
    """Return the methods whose recipes ship with the package, BOOT's first."""
    known = sorted(path.stem for path in RECIPES.glob("*.yaml"))
    return sorted(known, key=lambda name: (not name.startswith("boot"), name))


def recipe(method: str, folder: Path | None = None) -> Mapping[str, Any]:
    """Return a method's settings: those of the file METHOD.yaml in the user's folder, else those that ship.

    A method with neither, such as one of another package, enters with its own defaults.

    Raises:
        BootdiffError: if there is no such method, or its file cannot be read.
    """
    if method not in names():
        find_method(method)  # says what is wrong with two in one run
        choose(method, names(), "method")
    for place in (folder, RECIPES):
        path = None if place is None else place / f"{method}.yaml"
        if path is not None and path.is_file():
            return read_config(path)
    return {}


def check_recipes(folder: Path | None) -> None:
    """Refuse a folder of recipes that is none, that holds no recipe, or one of no method.

    Raises:
        BootdiffError: if it is so; the message names the folder.
    """
    if folder is None:
        return
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise BootdiffError(f"--recipes {folder}: expected a folder with files METHOD.yaml, and it has none.")
    for file in files:
        try:
            find_method(file.stem)
        except BootdiffError as error:
            raise BootdiffError(f"--recipes: {file} is of no method: {error.message}") from error
