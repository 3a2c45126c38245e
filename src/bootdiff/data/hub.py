"""Data sets of the hub, from its cache or fetched into it: ``hf:NAME`` is the parquet files, ``hf:NAME/FILE`` one."""

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
#: matches such an id, and a file of the data set
_ID_AND_FILE = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)/(?P<file>[\w./ -]+)")
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


def table_files(data: str) -> list[Path]:
    """Return the files of one table of a data set of the hub, in order: the file that is named, or the only table.

    Of several tables, such as a training split and a test split, it is the training split's.

    Raises:
        BootdiffError: if they are not to be had, or there are several tables of which none is the training split's.
    """
    named = _ID_AND_FILE.fullmatch(data.removeprefix(PREFIX))
    if named is not None:
        return [_file(named["name"], named["file"])]
    folder = data_folder(data)
    tables: dict[str, list[str]] = {}
    for file in sorted(_files(folder)):
        part = _PART.fullmatch(file)
        tables.setdefault(file.removesuffix(".parquet") if part is None else part["name"], []).append(file)
    training = [table for table in tables if re.search(r"(^|[/_-])train$", table)]
    chosen = list(tables) if len(tables) == 1 else training
    if len(chosen) != 1:
        name, first = data.removeprefix(PREFIX), next(iter(tables.values()))[0]
        raise BootdiffError(
            f"the data set {name} has several tables ({', '.join(list(tables)[:5])}); name one of its files, as in "
            f"{PREFIX}{name}/{first}."
        )
    return [folder / file for file in tables[chosen[0]]]


def _file(name: str, file: str) -> Path:
    """Return one file of a data set, from the hub's cache if it is there.

    Raises:
        BootdiffError: if it is neither there nor can be fetched.
    """
    from huggingface_hub import hf_hub_download

    error: Exception | None = None
    for local in (True, False):
        try:
            return Path(hf_hub_download(name, file, repo_type="dataset", local_files_only=local))
        except Exception as raised:  # the hub client raises many kinds; to the user each means "not to be had"
            let_pass(raised)
            error = raised
    raise BootdiffError(
        f"{file} of the data set {name} is not in the hub's cache and could not be fetched ({type(error).__name__}); "
        "check the spelling and the connection."
    ) from error


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
        raise BootdiffError(
            f"the data set {name} holds no parquet files; expected its images or prompts in a parquet column."
        )
    if not _whole(_files(folder)):  # without a connection the client gives what is there
        raise BootdiffError(
            f"only some of the files of the data set {name} are in the hub's cache, and the others could not be "
            "fetched; check the connection, or give a folder with all its parquet files."
        )
    return folder


def _files(folder: Path) -> list[str]:
    """Return the parquet files of a snapshot; a link whose file is missing was being fetched when somebody stopped."""
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet") if path.is_file()]
