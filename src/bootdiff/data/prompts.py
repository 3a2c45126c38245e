"""Reading prompts for text-conditional distillation: text, CSV, TSV, JSON, JSON lines and parquet files.

All but parquet may be gzipped. A prompt has at most 1,000,000 characters, a line 64 Mi of them, a JSON file 256 Mi of
them, and a file at most 4 GiB. A file that unpacks to more than 64 MiB may unpack to at most 200 times its size.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bootdiff.builtin import DIGITS, builtin_folder
from bootdiff.core.errors import shown
from bootdiff.data.hub import PREFIX, table_files
from bootdiff.data.prompt_formats import cells_of, has_columns
from bootdiff.data.text_lines import BROKEN, file_error
from bootdiff.storage.reading import check_regular

#: the most characters of a prompt, and the most bytes of a file
MOST_PROMPT, MOST_FILE = 1_000_000, 4 * 2**30


@dataclass(frozen=True)
class PromptFile:
    """The prompts of a file, in its order; repeated ones are kept, since repetition is a weight.

    Args:
        prompts: the prompts, without the white space around them.
        blank: how many lines or cells held no prompt and were left out.
        source: the file's name as it was given.
    """

    prompts: tuple[str, ...]
    blank: int
    source: str

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that change with any prompt or with the prompts' order, and with nothing else."""
        digest = hashlib.blake2b(digest_size=8)
        for prompt in self.prompts:
            digest.update(prompt.encode() + b"\0")  # no prompt holds NUL, so two lists never run into one
        return digest.hexdigest()


def read_prompts(path: Path | str, column: str | None = None) -> PromptFile:
    """Read the prompts of a file; its suffix names the format.

    Args:
        path: ``.csv`` or ``.tsv`` with a header, or of prompts alone; ``.jsonl``, ``.ndjson`` or ``.json`` with strings
            or objects; ``.parquet``; with any other suffix, or none, text with one prompt a line; all but parquet also
            gzipped, as in ``prompts.csv.gz``; ``hf:NAME`` or ``hf:NAME/FILE``, a data set of the hub; or ``digits``,
            the builtin ones.
        column: the column or key with the prompts; by default the first of ``COLUMNS``, or the only one there is.

    Raises:
        BootdiffError: if the file cannot be read, holds no prompts, or does not say which column holds them.
    """
    source = str(path)
    column, paths = _files(path, column)
    prompts: list[str] = []
    blank = 0
    limit = csv.field_size_limit(2**31 - 1)  # the most that fits a C long everywhere; the default refuses 128 KiB
    try:
        for path in paths:
            _check_file(path)
            for place, cell in cells_of(path, column):
                if prompt := _clean(path, place, cell):
                    prompts.append(prompt)
                else:
                    blank += 1
    except OSError as error:
        raise file_error(
            path, f"cannot be read ({error.strerror}); expected a file of prompts: name another."
        ) from error
    finally:
        csv.field_size_limit(limit)
    if not prompts:
        raise file_error(path, f"holds no prompts (blank ones: {blank}); expected at least one, so add some.")
    return PromptFile(tuple(prompts), blank, source)


def read_prompt_labels(path: Path | str, column: str | None, label_column: str) -> tuple[int, ...]:
    """Return the classes that a table's prompts ask for, from a column of their own.

    There is one for every prompt that ``read_prompts`` returns.

    Raises:
        BootdiffError: if the table has no such column, or a label in it is no whole number from 0.
    """
    file, places = _files(path, column)
    labels = []
    for where in places:
        _check_file(where)
        if not has_columns(where):
            raise file_error(
                where, f"has no columns, so none is called {label_column}; expected a table with the labels."
            )
        for (place, prompt), (_, label) in zip(cells_of(where, file), cells_of(where, label_column), strict=True):
            if not _clean(where, place, prompt):
                continue
            if not str(label).strip().isdecimal() or len(str(label)) > 18:
                raise file_error(where, f"{place}: the {label_column} should be a whole number, got {shown(label)}.")
            labels.append(int(str(label)))
    return tuple(labels)


def _files(path: Path | str, column: str | None) -> tuple[str | None, list[Path]]:
    """Return (column, files) of the name of prompts; ``digits`` stands for the builtin file, ``hf:…`` for the hub's."""
    word = str(path)
    if word == DIGITS and not Path(path).exists():
        return column or "prompt", [builtin_folder(DIGITS) / "prompts.csv"]
    if word.startswith(PREFIX) and not Path(path).exists():
        return column, table_files(word)
    return column, [Path(path)]


def _check_file(path: Path) -> None:
    """Refuse a file that is missing, no regular one, or too large to be prompts."""
    if not path.exists() or path.is_dir():
        found = "a folder" if path.is_dir() else "no such file"
        raise file_error(path, f"should be a file of prompts, found {found}; check its name.")
    check_regular(path, "prompts file")
    if (size := path.stat().st_size) > MOST_FILE:
        raise file_error(
            path, f"has {size / 2**30:.1f} GiB; expected prompts of at most {MOST_FILE // 2**30}: divide it."
        )


def _clean(path: Path, place: str, cell: object) -> str:
    """Return the prompt in a cell, or an empty string for a blank or null one."""
    if cell is None:
        return ""
    if not isinstance(cell, str):
        raise file_error(path, f"{place} holds a value of type {type(cell).__name__}; expected a string with a prompt.")
    check_words(cell, f"{path} {place}")
    return cell.strip()


def check_words(text: str, place: str) -> None:
    """Refuse a text that no tokenizer takes, wherever it comes from: a prompt, a caption, an option.

    Args:
        place: where the text stands, for the message.

    Raises:
        BootdiffError: for a text with a NUL or half a character, or with more characters than a prompt may have.
    """
    if BROKEN.search(text):
        raise file_error(place, "holds a NUL or half a character; expected plain text, so mend or remove it.")
    if len(text) > MOST_PROMPT:
        raise file_error(place, f"has {len(text):,} characters; expected a prompt of at most {MOST_PROMPT:,}.")
