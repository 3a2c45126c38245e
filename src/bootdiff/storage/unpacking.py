"""Opening data files: regular files, gzipped or not, and none that unpacks without end."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from bootdiff.core.errors import BootdiffError
from bootdiff.storage.reading import check_regular

#: the bytes to which a file of any size may unpack, and beyond that the multiple of its own size
ALWAYS, TIMES = 64 * 2**20, 200
#: the first bytes of compressed files of kinds that are not read, and the names of these kinds
_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstandard", b"PK\x03\x04": "zip", b"7z\xbc\xaf": "7-zip"}


def check_unpacked(path: Path, size: int) -> None:
    """Refuse a file that unpacks to far more than data do: text seldom shrinks to a twentieth, images not at all.

    Args:
        size: the number of bytes to which the file has unpacked so far, or says that it will.

    Raises:
        BootdiffError: if that is more than 64 MiB and more than 200 times the file's size.
    """
    if size > ALWAYS and size > TIMES * path.stat().st_size:
        raise BootdiffError(
            f"{path} unpacks to more than {TIMES} times its size and {ALWAYS // 2**20} MiB, as no data do; if it is "
            "right, unpack it yourself."
        )


@contextmanager
def open_bytes(path: Path, noun: str) -> Iterator[IO[bytes]]:
    """Open a file of bytes, which are unpacked where they are gzipped, whatever the file's name.

    Raises:
        BootdiffError: if the file is no regular one, is packed in another way, is damaged or unpacks without end.
    """
    check_regular(path, noun)
    with path.open("rb") as file:
        start = file.read(6)
        file.seek(0)
        packed = next((kind for mark, kind in _OTHERS.items() if start.startswith(mark)), None)
        if packed is not None:
            raise BootdiffError(f"{path} is packed ({packed}); expected a {noun}, plain or gzipped: unpack it first.")
        yield io.BufferedReader(_Unpacked(path, file)) if start.startswith(b"\x1f\x8b") else file


class _Unpacked(io.RawIOBase):
    """The unpacked bytes of a gzipped file, counted as they are read."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path, self.inner, self.count = path, gzip.GzipFile(fileobj=file), 0

    def readable(self) -> bool:
        """Return True, because this stream is for reading."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read as many bytes as ``buffer`` has room for, and return their number."""
        room = memoryview(buffer)
        try:
            part = self.inner.read(len(room))
        except (EOFError, OSError, zlib.error) as error:
            raise BootdiffError(f"{self.path} cannot be unpacked ({error}); fetch it again.") from error
        self.count += len(part)
        check_unpacked(self.path, self.count)
        room[: len(part)] = part
        return len(part)
