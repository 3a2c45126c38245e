"""Reading columns of parquet files in batches, so that a small file cannot unpack to more than memory holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bootdiff.core.errors import BootdiffError, first_line, shown
from bootdiff.storage.reading import check_regular, parse_json
from bootdiff.storage.unpacking import ALWAYS, check_unpacked

#: the number of rows that are read at a time: of short values, and of values that may be long
ROWS, FEW_ROWS = 4096, 64
#: the number of bytes for which an empty cell counts
CELL = 16

#: a function from a column's name and type to what is wrong with it; None where nothing is
Check = Callable[[str, Any], str | None]


def column_names(path: Path) -> list[str]:
    """Return the names of a file's columns.

    Raises:
        BootdiffError: if the file cannot be read.
    """
    with _opened(path) as file:
        return list(file.schema_arrow.names)


def read_column(path: Path, name: str, check: Check) -> Iterator[Any]:
    """Yield the cells of a column, one after the other.

    Raises:
        BootdiffError: if the file cannot be read, its column is of a wrong type, or it unpacks without end.
    """
    with _opened(path) as file:
        plain = [name] if name in {file.schema.column(i).path for i in range(len(file.schema))} else []
    # What is no struct is read with each distinct value once, whatever number of rows holds it.
    with _opened(path, plain) as file:
        place = file.schema_arrow.get_field_index(name)
        wrong = check(name, file.schema_arrow.field(place).type) if place >= 0 else f"column {shown(name)} occurs twice"
        if wrong is not None:
            raise BootdiffError(f"{path}: {wrong}.")
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
        sizes = [c.total_uncompressed_size for c in chunks if c.path_in_schema.split(".")[0] == name.split(".")[0]]
        check_unpacked(path, max(sum(sizes), CELL * file.metadata.num_rows))
        rows = ROWS if max(sizes, default=0) < 2**20 else max(1, min(FEW_ROWS, ALWAYS // max(sizes)))
        unpacked = 0
        for batch in file.iter_batches(batch_size=rows, columns=[name]):
            for cell in batch.column(batch.schema.get_field_index(name)):
                value = cell.as_py()
                unpacked += CELL + _length(value)
                check_unpacked(path, unpacked)
                yield value


def class_names(path: Path, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the names of classes that data sets of the hub keep in a file's schema; empty where there are none."""
    with _opened(path) as file:
        words = (file.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
    try:
        features = parse_json(words.decode())["info"]["features"]
        names = next(features[name]["names"] for name in columns if "names" in features.get(name, {}))
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()


@contextmanager
def _opened(path: Path, distinct: Sequence[str] = ()) -> Iterator[Any]:
    try:
        import pyarrow.parquet
    except ImportError:
        raise BootdiffError("parquet files need pyarrow; install it with: pip install 'bootdiff[train]'.") from None
    check_regular(path, "parquet file")
    try:
        with pyarrow.parquet.ParquetFile(path, read_dictionary=list(distinct)) as file:
            yield file
    except (OSError, ValueError, MemoryError, pyarrow.ArrowException) as error:
        raise BootdiffError(f"{path} cannot be read as parquet ({first_line(error)}); fetch it again.") from error


def _length(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(_length, value.values()))
    return len(value) if isinstance(value, str | bytes) else 0
