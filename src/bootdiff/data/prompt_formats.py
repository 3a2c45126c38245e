"""Readers for the formats of prompts files: each yields the cells of the column with the prompts, and their places.

Text has one prompt a line; CSV, TSV and parquet are tables; JSON and JSON lines hold strings or objects. COCO's
captions are JSON, too: an object whose ``annotations`` are such a list.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from bootdiff.core.errors import nearest, shown
from bootdiff.data.parquet import column_names, read_column
from bootdiff.data.text_lines import cut, file_error, text_lines
from bootdiff.storage.reading import parse_json
from bootdiff.system.notes import note

#: the columns that are taken where none is named, the most telling first; compared in lower case
COLUMNS = ("prompt", "prompts", "caption", "text")
#: the key under which COCO's files of captions have their list
ANNOTATIONS = "annotations"
#: the most characters of a whole JSON file
MOST_JSON = 256 * 2**20
#: the suffix of a gzipped file
PACKED = ".gz"

#: the type of what a reader yields: pairs of where a cell stands ("line 3") and what it holds
Cells = Iterator[tuple[str, object]]


def cells_of(path: Path, column: str | None) -> Cells:
    """Yield the cells of the column with the prompts, whatever the file's format."""
    return _READERS.get(_kind(path), _read_lines)(path, column)


def has_columns(path: Path) -> bool:
    """Return whether the format of a file has columns at all."""
    return _kind(path) in _READERS


def _kind(path: Path) -> str:
    """Return the suffix that names a file's format, without that of gzip."""
    return Path(path.stem if path.suffix.lower() == PACKED else path.name).suffix.lower()


def _choose(path: Path, place: str, columns: list[str], column: str | None) -> str:
    """Return the column with the prompts: the one asked for, else the first of ``COLUMNS``, else the only one."""
    name = _likely(path, place, columns, column)
    if columns.count(name) > 1:
        raise file_error(path, f"{place} names the column {shown(name, 40)} twice; rename or remove one of them.")
    return name


def _likely(path: Path, place: str, columns: list[str], column: str | None) -> str:
    if column in columns:
        return column
    listed = cut(", ".join(columns)) or "none"
    if column is not None:
        close = nearest(column, columns)
        raise file_error(path, f"{place} has no column {shown(column, 40)}; name one of these: {listed}.{cut(close)}")
    lowered = {name.lower(): name for name in reversed(columns)}
    likely = [lowered[name] for name in COLUMNS if name in lowered] or columns
    if likely is columns and len(columns) != 1:
        raise file_error(
            path, f"{place} has columns {listed}; expected one of {', '.join(COLUMNS)}: use --prompt-column."
        )
    return likely[0]


def _read_lines(path: Path, column: str | None) -> Cells:
    if column is not None:
        raise file_error(
            path, f"is text, a prompt a line, and has no columns; leave out --prompt-column {cut(column)}."
        )
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
        raise file_error(
            path,
            f"{place} is one column, '{cut(header[0])}'; expected {mark} between columns: save it anew, or as .txt if "
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
            raise file_error(path, f"{place} has {len(row)} cells, expected {len(header)} as in the header; {cure}.")
        yield place, row[index] if index < len(row) else None


def _divided(first: str, second: list[str], tabs: bool) -> bool:
    """Return whether what looks like one column is several, with another mark between them.

    Spreadsheets in much of Europe write semicolons. One of the parts is then a usual name, or the next row has as many
    parts. Commas are too common in prompts to tell.

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
    """Yield the rows of a table, and for each the line on which it starts.

    The reader is strict: a quote that was left open would make one prompt of all that follows.
    """
    # Tab-separated files have no quoting: PartiPrompts has a prompt that starts with a quoted word and goes on.
    lines = text_lines(path)
    reader = csv.reader(lines, csv.excel_tab, quoting=csv.QUOTE_NONE) if tabs else csv.reader(lines, strict=True)
    start = 1
    try:
        for row in reader:
            yield f"line {start}", row
            start = reader.line_num + 1
    except csv.Error as error:
        raise file_error(
            path, f"line {start} is not CSV ({error}); close its quotes, and double those inside."
        ) from None


def _parse(path: Path, text: str, line: int = 1) -> object:
    try:
        return parse_json(text, nan=True) if text.strip() else None
    except ValueError as error:
        line += getattr(error, "lineno", 1) - 1
        raise file_error(
            path, f"line {line} is not JSON ({getattr(error, 'msg', error)}); mend or remove it."
        ) from None


def _read_json_lines(path: Path, column: str | None) -> Cells:
    lines = enumerate(text_lines(path), 1)
    return _pick(path, ((f"line {number}", _parse(path, line.strip(), number)) for number, line in lines), column)


def _read_json(path: Path, column: str | None) -> Cells:
    parts, size = [], 0
    for line in text_lines(path, MOST_JSON):
        parts.append(line)
        size += len(line)
        if size > MOST_JSON:
            raise file_error(
                path, f"has more than {MOST_JSON:,} characters; write so many prompts as JSON lines (.jsonl)."
            )
    values = _parse(path, "".join(parts))
    if isinstance(values, dict) and isinstance(values.get(ANNOTATIONS), list):
        values = values[ANNOTATIONS]
    if not isinstance(values, list | None):
        raise file_error(path, f"holds a JSON value of type {type(values).__name__}; expected a list of prompts.")
    return _pick(path, ((f"item {number}", value) for number, value in enumerate(values or [], 1)), column)


def _pick(path: Path, values: Iterable[tuple[str, object]], column: str | None) -> Cells:
    """Yield the prompt of each object; each must have the column that the first one settled."""
    for place, value in values:
        if isinstance(value, dict):
            column = _choose(path, place, list(value), column)
            value = value[column]
        elif isinstance(value, str) and column is not None:
            raise file_error(path, f"{place} is a string without columns; expected an object with '{cut(column)}'.")
        yield place, value


def _read_parquet(path: Path, column: str | None) -> Cells:
    name = _choose(path, "its schema", column_names(path), column)
    yield from ((f"row {number}", cell) for number, cell in enumerate(read_column(path, name, _values), 1))


def _values(name: str, kind: Any) -> str | None:
    """Return what is wrong with a column of this arrow type; None where each cell is one value."""
    import pyarrow

    nested = pyarrow.types.is_nested(kind)
    return f"the column {cut(name)} holds {cut(str(kind))}; expected strings with a prompt each" if nested else None


_READERS: dict[str, Callable[[Path, str | None], Cells]] = {
    ".csv": _read_table,
    ".tsv": _read_table,
    ".json": _read_json,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}
