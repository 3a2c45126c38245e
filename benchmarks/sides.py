"""Two states of the package side by side: a benchmark's BEFORE and AFTER, each a copy of its sources."""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from records import ROOT, commit

#: the word that stands for the working tree
TREE = "."


@dataclass(frozen=True)
class Side:
    """One of the two.

    Args:
        name: the commit's short hash, with ``+`` where files have been changed since; or a folder's name.
        word: what names it on a command line.
        src: a copy of its sources, which nothing changes while they are at work.
    """

    name: str
    word: str
    src: Path


def add_sides(parser: argparse.ArgumentParser) -> None:
    """The two arguments: by default, what was changed since the parent of the present commit."""
    told = "a commit, a folder that holds src, or . for the working tree"
    parser.add_argument("before", nargs="?", default="HEAD~1", help=told)
    parser.add_argument("after", nargs="?", default=TREE, help=told)


def take(word: str, place: Path) -> Side:
    """Copy the sources that a word names into a folder; a word that names none ends the program."""
    folder = ROOT if word == TREE else Path(word)
    if (folder / "src" / "bootdiff").is_dir():
        shutil.copytree(folder / "src", place, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        if folder != ROOT:
            return Side(folder.resolve().name, folder.resolve().name, place)
        name = commit()
        return Side(name, TREE if name.endswith("+") else name, place)
    found = git("rev-parse", "--verify", "--quiet", "--short=8", f"{word}^{{commit}}")
    if found.returncode:
        refuse(f"expected a commit, a folder that holds src, or . for the working tree, got '{word}'.")
    name = found.stdout.decode().strip()
    packed = git("archive", "--format=tar", name, "src")
    if packed.returncode:
        refuse(f"the commit {name} has no sources in src; name a later one.")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(place.parent / f".{place.name}", filter="data")
    (place.parent / f".{place.name}" / "src").rename(place)
    return Side(name, name, place)


def git(*words: str) -> subprocess.CompletedProcess[bytes]:
    """Ask git about this repository."""
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True)


def last_words(said: str) -> str:
    """The last line of what a command said, without the frame that one may have drawn around it."""
    lines = [line.strip("│ ") for line in said.splitlines() if any(map(str.isalnum, line))]
    return lines[-1] if lines else "it said nothing."


def refuse(words: str) -> NoReturn:
    """End with one line and exit code 2."""
    print(f"{Path(sys.argv[0]).name}: {words}", file=sys.stderr)
    sys.exit(2)
