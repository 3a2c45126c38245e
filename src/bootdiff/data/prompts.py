"""Reading prompts for text-conditional distillation: text, CSV, TSV, JSON, JSON lines and parquet files.

All but parquet may be gzipped. The limits: a prompt has at most 1,000,000 characters, a line 64 Mi of them, a JSON file
256 Mi, a file 4 GiB; and what unpacks to more than 64 MiB may do so to at most 200 times its size.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bootdiff.builtin import DIGITS, builtin_folder
from bootdiff.core.errors import BootdiffError, nearest, one_line, shown
from bootdiff.data.parquet import column_names, read_column
from bootdiff.storage.reading import check_regular, parse_json
from bootdiff.storage.unpacking import open_bytes
from bootdiff.system.notes import note

#: the columns taken when none is named, most telling first; compared in lower case
COLUMNS = ("prompt", "prompts", "caption", "text")

#: characters of a prompt and of a line, and of a JSON file as a whole; bytes of a file
MOST_PROMPT, MOST_LINE, MOST_JSON, MOST_FILE = 1_000_000, 64 * 2**20, 256 * 2**20, 4 * 2**30
#: the suffix of what is gzipped
PACKED = ".gz"

#: what no prompt may hold: NUL, and the halves of characters that stand for bytes outside UTF-8
_BROKEN = re.compile("[\0\ud800-\udfff]")

#: what a reader yields: where a cell stands ("line 3") and what it holds
Cells = Iterator[tuple[str, object]]


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
        """Sixteen hexadecimal digits that change with any prompt or with their order, and with nothing else."""
        digest = hashlib.blake2b(digest_size=8)
        for prompt in self.prompts:
            digest.update(prompt.encode() + b"\0")  # no prompt holds NUL, so two lists never run into one
        return digest.hexdigest()


def read_prompts(path: Path | str, column: str | None = None) -> PromptFile:
    """Read the prompts of a file; its suffix names the format.

    Args:
        path: ``.csv`` or ``.tsv`` with a header, or of prompts alone; ``.jsonl``, ``.ndjson`` or ``.json`` with strings
            or objects; ``.parquet``; with any other suffix, or none, text with one prompt a line; all but parquet also
            gzipped, as in ``prompts.csv.gz``; or ``digits``, the builtin ones.
        column: the column or key with the prompts; by default the first of ``COLUMNS``, or the only one there is.

    Raises:
        BootdiffError: if the file cannot be read, holds no prompts, or does not say which column holds them.
    """
    source = str(path)
    column, path = _file(path, column)
    prompts: list[str] = []
    blank = 0
    limit = csv.field_size_limit(2**31 - 1)  # the most that fits a C long everywhere; the default refuses 128 KiB
    try:
        _check_file(path)
        for place, cell in _cells(path, column):
            if prompt := _clean(path, place, cell):
                prompts.append(prompt)
            else:
                blank += 1
    except OSError as error:
        raise _error(path, f"cannot be read ({error.strerror}); expected a file of prompts: name another.") from error
    finally:
        csv.field_size_limit(limit)
    if not prompts:
        raise _error(path, f"holds no prompts (blank ones: {blank}); expected at least one, so add some.")
    return PromptFile(tuple(prompts), blank, source)


def read_prompt_labels(path: Path | str, column: str | None, label_column: str) -> tuple[int, ...]:
    """The classes that a table's prompts ask for, from a column of their own: one for every prompt of ``read_prompts``.

    Raises:
        BootdiffError: if it has no such column, or one of them is no whole number from 0.
    """
    file, where = _file(path, column)
    _check_file(where)
    if _kind(where) not in _READERS:
        raise _error(where, f"has no columns, so none is called {label_column}; expected a table with the labels.")
    rows = zip(_cells(where, file), _cells(where, label_column), strict=True)
    labels = []
    for (place, prompt), (_, label) in rows:
        if not _clean(where, place, prompt):
            continue
        if not str(label).strip().isdecimal() or len(str(label)) > 18:
            raise _error(where, f"{place}: the {label_column} should be a whole number, got {shown(label)}.")
        labels.append(int(str(label)))
    return tuple(labels)


def _file(path: Path | str, column: str | None) -> tuple[str | None, Path]:
    """(column, file) of a name: ``digits`` is the builtin file."""
    if str(path) == DIGITS and not Path(path).exists():
        return column or "prompt", builtin_folder(DIGITS) / "prompts.csv"
    return column, Path(path)


def _cells(path: Path, column: str | None) -> Cells:
    return _READERS.get(_kind(path), _read_lines)(path, column)


def _kind(path: Path) -> str:
    """The suffix that names the format, without that of packing."""
    return Path(path.stem if path.suffix.lower() == PACKED else path.name).suffix.lower()


def _check_file(path: Path) -> None:
    """Refuse what is missing, no regular file, or too large to be prompts."""
    if not path.exists() or path.is_dir():
        found = "a folder" if path.is_dir() else "no such file"
        raise _error(path, f"should be a file of prompts, found {found}; check its name.")
    check_regular(path, "prompts file")
    if (size := path.stat().st_size) > MOST_FILE:
        raise _error(path, f"has {size / 2**30:.1f} GiB; expected prompts of at most {MOST_FILE // 2**30}: divide it.")


def _error(path: Path | str, problem: str) -> BootdiffError:
    """One line that any terminal can print, whatever line breaks or broken characters the file brought into it."""
    name, words = (" ".join(text.encode(errors="replace").decode().split()) for text in (str(path), problem))
    return BootdiffError(f"{name} {one_line(words, 240)}")


def _clean(path: Path, place: str, cell: object) -> str:
    """The prompt in a cell, or an empty string for a blank or null one."""
    if cell is None:
        return ""
    if not isinstance(cell, str):
        raise _error(path, f"{place} holds a value of type {type(cell).__name__}; expected a string with a prompt.")
    check_words(cell, f"{path} {place}")
    return cell.strip()


def check_words(text: str, place: str) -> None:
    """Refuse what no tokenizer takes, wherever it comes from: a prompt, a caption, an option.

    Args:
        place: where it stands, for the message.

    Raises:
        BootdiffError: for a NUL, for half a character, and for more characters than a prompt may have.
    """
    if _BROKEN.search(text):
        raise _error(place, "holds a NUL or half a character; expected plain text, so mend or remove it.")
    if len(text) > MOST_PROMPT:
        raise _error(place, f"has {len(text):,} characters; expected a prompt of at most {MOST_PROMPT:,}.")


def _choose(path: Path, place: str, columns: list[str], column: str | None) -> str:
    """The column with the prompts: the one asked for, else the first of ``COLUMNS``, else the only one."""
    name = _likely(path, place, columns, column)
    if columns.count(name) > 1:
        raise _error(path, f"{place} names the column {shown(name, 40)} twice; rename or remove one of them.")
    return name


def _likely(path: Path, place: str, columns: list[str], column: str | None) -> str:
    if column in columns:
        return column
    listed = _cut(", ".join(columns)) or "none"
    if column is not None:
        close = nearest(column, columns)
        raise _error(path, f"{place} has no column {shown(column, 40)}; name one of these: {listed}.{_cut(close)}")
    lowered = {name.lower(): name for name in reversed(columns)}
    likely = [lowered[name] for name in COLUMNS if name in lowered] or columns
    if likely is columns and len(columns) != 1:
        raise _error(path, f"{place} has columns {listed}; expected one of {', '.join(COLUMNS)}: use --prompt-column.")
    return likely[0]


def _cut(text: str, most: int = 80) -> str:
    return text if len(text) <= most else f"{text[: most - 2]} …"


def text_lines(path: Path, most: int = MOST_LINE) -> Iterator[str]:
    """The lines of a UTF-8 file, gzipped or not, with or without a byte order mark, whichever way they end.

    Args:
        most: characters of a line.
    """
    with open_bytes(path, "text file") as raw:
        file = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape")
        for number, line in enumerate(iter(lambda: file.readline(most + 1), ""), 1):
            if broken := _BROKEN.search(line):
                byte = ord(broken[0]) & 0xFF
                raise _error(path, f"line {number} is not UTF-8 text (byte 0x{byte:02x}); save the file as UTF-8.")
            if len(line) > most:
                raise _error(path, f"line {number} has more than {most:,} characters; is it a file of prompts?")
            yield line


def _read_lines(path: Path, column: str | None) -> Cells:
    if column is not None:
        raise _error(path, f"is text, a prompt a line, and has no columns; leave out --prompt-column {_cut(column)}.")
    for number, line in enumerate(text_lines(path), 1):
        yield f"line {number}", line


def _read_table(path: Path, column: str | None) -> Cells:
    tabs = _kind(path) == ".tsv"
    rows = _rows(path, tabs)
    place, first = next((entry for entry in rows if entry[1]), ("", []))
    header = [name.strip() for name in first]
    if not header:
        return
    second = next(rows, ("", []))
    if column is None and len(header) == 1 and _divided(header[0], second[1], tabs):
        mark = "tabs" if tabs else "commas"
        raise _error(
            path,
            f"{place} is one column, '{_cut(header[0])}'; expected {mark} between columns: save it anew, or as .txt if "
            "each line is a prompt.",
        )
    if column is None and len(header) == 1 and header[0].lower() not in COLUMNS:
        note(f"{path} has one column and no header such as 'prompt': {place} is taken for a prompt, too.")
        yield place, first[0]
        column = header[0]
    index = header.index(_choose(path, place, header, column))
    for place, row in itertools.chain([second] if second[0] else [], rows):
        if any(cell.strip() for cell in row[len(header) :]):
            cure = "take the tabs out of its prompt" if tabs else "put a prompt with commas in double quotes"
            raise _error(path, f"{place} has {len(row)} cells, expected {len(header)} as in the header; {cure}.")
        yield place, row[index] if index < len(row) else None


def _divided(first: str, second: list[str], tabs: bool) -> bool:
    """Whether a column holds several, as of spreadsheets in much of Europe, which write semicolons.

    One of its parts is then a usual name, or the next row has as many parts; commas are too usual in prompts to tell.
    """
    for mark in ",;" if tabs else ";\t":
        parts = first.split(mark)
        named = any(part.strip().lower() in COLUMNS for part in parts)
        as_many = mark != "," and len(second) == 1 and second[0].count(mark) == len(parts) - 1
        if len(parts) > 1 and (named or as_many):
            return True
    return False


def _rows(path: Path, tabs: bool) -> Iterator[tuple[str, list[str]]]:
    """The rows and the line each starts on. Strict: a quote left open would make one prompt of all that follows."""
    # Tab-separated files have no quoting: PartiPrompts has a prompt that starts with a quoted word and goes on.
    lines = text_lines(path)
    reader = csv.reader(lines, csv.excel_tab, quoting=csv.QUOTE_NONE) if tabs else csv.reader(lines, strict=True)
    start = 1
    try:
        for row in reader:
            yield f"line {start}", row
            start = reader.line_num + 1
    except csv.Error as error:
        raise _error(path, f"line {start} is not CSV ({error}); close its quotes, and double those inside.") from None


def _parse(path: Path, text: str, line: int = 1) -> object:
    try:
        return parse_json(text, nan=True) if text.strip() else None
    except ValueError as error:
        line += getattr(error, "lineno", 1) - 1
        raise _error(path, f"line {line} is not JSON ({getattr(error, 'msg', error)}); mend or remove it.") from None


def _read_json_lines(path: Path, column: str | None) -> Cells:
    lines = enumerate(text_lines(path), 1)
    return _pick(path, ((f"line {number}", _parse(path, line.strip(), number)) for number, line in lines), column)


def _read_json(path: Path, column: str | None) -> Cells:
    parts, size = [], 0
    for line in text_lines(path, MOST_JSON):
        parts.append(line)
        size += len(line)
        if size > MOST_JSON:
            raise _error(path, f"has more than {MOST_JSON:,} characters; write so many prompts as JSON lines (.jsonl).")
    values = _parse(path, "".join(parts))
    if not isinstance(values, list | None):
        raise _error(path, f"holds a JSON value of type {type(values).__name__}; expected a list of prompts.")
    return _pick(path, ((f"item {number}", value) for number, value in enumerate(values or [], 1)), column)


def _pick(path: Path, values: Iterable[tuple[str, object]], column: str | None) -> Cells:
    """Take the prompt out of each object; every one must have the column that the first settled."""
    for place, value in values:
        if isinstance(value, dict):
            column = _choose(path, place, list(value), column)
            value = value[column]
        elif isinstance(value, str) and column is not None:
            raise _error(path, f"{place} is a string without columns; expected an object with '{_cut(column)}'.")
        yield place, value


def _read_parquet(path: Path, column: str | None) -> Cells:
    name = _choose(path, "its schema", column_names(path), column)
    yield from ((f"row {number}", cell) for number, cell in enumerate(read_column(path, name, _values), 1))


def _values(name: str, kind: Any) -> str | None:
    """What is wrong with a column of this arrow type; nothing where each cell is one value."""
    import pyarrow

    nested = pyarrow.types.is_nested(kind)
    return f"the column {_cut(name)} holds {_cut(str(kind))}; expected strings with a prompt each" if nested else None


_READERS: dict[str, Callable[[Path, str | None], Cells]] = {
    ".csv": _read_table,
    ".tsv": _read_table,
    ".json": _read_json,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}
