"""Reading the lines of a text file, gzipped or not, and one-line errors about what stands in a file."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

from bootdiff.core.errors import BootdiffError, one_line
from bootdiff.storage.unpacking import open_bytes

#: the most characters of a line
MOST_LINE = 64 * 2**20
#: matches what no prompt may hold: NUL, and the halves of characters that stand for bytes outside UTF-8
BROKEN = re.compile("[\0\ud800-\udfff]")


def text_lines(path: Path, most: int = MOST_LINE) -> Iterator[str]:
    """Yield the lines of a UTF-8 file, gzipped or not, whichever way they end; a byte order mark is left out.

    Args:
        most: the most characters of a line.
    """
    with open_bytes(path, "text file") as raw:
        file = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape")
        for number, line in enumerate(iter(lambda: file.readline(most + 1), ""), 1):
            if broken := BROKEN.search(line):
                byte = ord(broken[0]) & 0xFF
                raise file_error(path, f"line {number} is not UTF-8 text (byte 0x{byte:02x}); save the file as UTF-8.")
            if len(line) > most:
                raise file_error(path, f"line {number} has more than {most:,} characters; is it a file of prompts?")
            yield line


def file_error(path: Path | str, problem: str) -> BootdiffError:
    """Return an error of one line that any terminal can print, whatever characters the file brought into it."""
    name, words = (" ".join(text.encode(errors="replace").decode().split()) for text in (str(path), problem))
    return BootdiffError(f"{name} {one_line(words, 240)}")


def cut(text: str, most: int = 80) -> str:
    """Return a text, cut to ``most`` characters where it is longer."""
    return text if len(text) <= most else f"{text[: most - 2]} …"
