"""Data sets of the hub, ``hf:NAME``: their parquet files, from the hub's cache or fetched into it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bootdiff.core.errors import BootdiffError, shown
from bootdiff.system.out_of_memory import let_pass

#: what the name of such a data set begins with
PREFIX = "hf:"
#: matches a data set's id on the hub
_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
#: matches a file's name that says which part of how many it is
_PART = re.compile(r"(?P<name>.*)-\d+-of-(?P<count>\d+)\.parquet")


def data_folder(data: str) -> Path:
    """Return the folder or file that a data set's word names; ``hf:NAME`` is looked for in the hub's cache first.

    Raises:
        BootdiffError: if a data set of the hub is neither in the cache nor can be fetched, or has no parquet files.
    """
    path = Path(data)
    if not data.startswith(PREFIX) or path.exists():
        return path
    name = data.removeprefix(PREFIX)
    if _ID.fullmatch(name) is None:
        raise BootdiffError(f"expected hf:NAME, with a data set's id on the hub such as owner/name, got {shown(data)}.")
    return _cached(name) or _fetched(name)


def _cached(name: str) -> Path | None:
    """Return the snapshot in the hub's cache if it holds parquet files, with all their parts; None otherwise."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, repo_type="dataset", local_files_only=True))
    except Exception as error:  # nothing there; the client raises many kinds
        let_pass(error)
        return None
    files = _files(folder)
    return folder if files and _whole(files) else None


def _whole(files: Sequence[str]) -> bool:
    """Return whether every file that says it is one of several parts has all the others beside it."""
    parts = [match for match in map(_PART.fullmatch, files) if match is not None]
    groups = {(match["name"], int(match["count"])) for match in parts}
    return all(sum(match["name"] == name for match in parts) == count for name, count in groups)


def _fetched(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, repo_type="dataset", allow_patterns=["*.parquet"]))
    except Exception as error:  # the hub client raises many kinds; to the user each means "not to be had"
        let_pass(error)
        raise BootdiffError(
            f"the data set {name} is not in the hub's cache and could not be fetched ({type(error).__name__}); check "
            "the spelling and the connection, or give a folder with its parquet files."
        ) from error
    if not any(folder.rglob("*.parquet")):
        raise BootdiffError(f"the data set {name} holds no parquet files; expected image files in a parquet column.")
    if not _whole(_files(folder)):  # without a connection the client gives what is there
        raise BootdiffError(
            f"only some of the files of the data set {name} are in the hub's cache, and the others could not be "
            "fetched; check the connection, or give a folder with all its parquet files."
        )
    return folder


def _files(folder: Path) -> list[str]:
    """Return the parquet files of a snapshot; a link whose file is missing was being fetched when somebody stopped."""
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet") if path.is_file()]
