"""Opening data files: regular ones, gzipped or not, and none that unpacks without end."""

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

#: a file may unpack to so many bytes whatever its size, and beyond that to so many times its size
ALWAYS, TIMES = 64 * 2**20, 200
#: how compressed files that are not read begin
_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstandard", b"PK\x03\x04": "zip", b"7z\xbc\xaf": "7-zip"}


def check_unpacked(path: Path, size: int) -> None:
    """Refuse what unpacks to far more than data do: text seldom shrinks to a twentieth, images not at all.

    Args:
        size: bytes that it has unpacked to, or says that it will.

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
    """A file's bytes, unpacked where they are gzipped, whatever the file is called.

    Raises:
        BootdiffError: if it is no regular file, is packed in another way, is damaged or unpacks without end.
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
    """What a gzipped file holds, counted as it is read."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path, self.inner, self.count = path, gzip.GzipFile(fileobj=file), 0

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As many bytes as there is room for."""
        room = memoryview(buffer)
        try:
            part = self.inner.read(len(room))
        except (EOFError, OSError, zlib.error) as error:
            raise BootdiffError(f"{self.path} cannot be unpacked ({error}); fetch it again.") from error
        self.count += len(part)
        check_unpacked(self.path, self.count)
        room[: len(part)] = part
        return len(part)
