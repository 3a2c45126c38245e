"""Copies the tables of docs/records into README.md and docs/results.md, between marks that name them.

python benchmarks/tables.py [--check]

A mark is a line ``<!-- record: NAME TABLE -->``; what stands between it and the next ``<!-- end -->`` is made anew.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from records import FOLDER, ROOT, Record, Row, read_record

TEXTS = (ROOT / "README.md", ROOT / "docs" / "results.md")
_MARKED = re.compile(r"(<!-- record: (?P<name>[\w-]+) (?P<table>[^>]+?) -->\n)(?P<old>.*?)(<!-- end -->)", re.DOTALL)


def filled(text: str, folder: Path = FOLDER) -> str:
    """The text with every marked table as its record has it.

    Raises:
        ValueError: for a mark whose record or table does not exist.
    """

    def table_of(match: re.Match[str]) -> str:
        name, table = match["name"], match["table"]
        record = read_record(folder / f"{name}.json")
        if table not in record.values:
            raise ValueError(f"the record {name} has no table '{table}'; it has {', '.join(record.values)}.")
        return f"{match[1]}{markdown(record.values[table])}\n{origin(record)}\n{match[5]}"

    return _MARKED.sub(table_of, text)


def markdown(rows: Sequence[Row]) -> str:
    """A Markdown table; its columns are the keys of all rows, in the order in which they first appear."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns), *([shown(row.get(key)) for key in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def shown(value: Any) -> str:
    """A number with four significant digits, thousands set apart; a dash for nothing."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def origin(record: Record) -> str:
    """Where a table comes from, in a sentence."""
    threads = f"{record.threads} thread{'s' if record.threads > 1 else ''}"
    where = f"{record.machine}, {threads}, torch {record.versions['torch']}"
    return f"`{record.command}` on {where}; {record.date}, commit {record.commit}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a table is out of date")
    asked = parser.parse_args()
    for path in TEXTS:
        try:
            old = path.read_text(encoding="utf-8")
            new = filled(old)
        except (OSError, ValueError) as error:
            print(f"tables.py: {error}", file=sys.stderr)
            sys.exit(2)
        if asked.check and new != old:
            sys.exit(f"{path} does not have the tables of docs/records; run: python benchmarks/tables.py")
        if not asked.check:
            path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
