"""Reading others' ``.npz`` files: an array's header is checked before the array is unpacked, and no code is run."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import IO
from zipfile import BadZipFile, ZipFile

import numpy as np

from bootdiff.core.errors import BootdiffError, first_line
from bootdiff.storage.reading import check_regular
from bootdiff.storage.unpacking import check_unpacked

#: the most bytes of an array: those of a covariance of 16,384 features
MOST_BYTES = 2**31
#: what a damaged file raises, also one whose header is no Python that numpy can read
DAMAGED = (
    *(OSError, EOFError, ValueError, TypeError, RuntimeError, MemoryError, struct.error, zlib.error, BadZipFile),
    *(TokenError, SyntaxError),
)
#: the letters of numpy's kinds of types: real numbers, and text
NUMBERS, WORDS = "biuf", "U"


def read_npz(path: Path, numbers: tuple[str, ...] = (), words: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Return those of the named arrays that a file holds: numbers in float64 or int64, words as they are.

    Raises:
        BootdiffError: if the file is no ``.npz`` file or damaged, or an array is of another kind or larger than 2 GiB.
    """
    check_regular(path, "file of arrays")
    held = {}
    try:
        with ZipFile(path) as file:
            sizes = {info.filename: info.file_size for info in file.infolist()}
            for names, kinds in ((numbers, NUMBERS), (words, WORDS)):
                for name in names:
                    if (inside := f"{name}.npy") in sizes:
                        with file.open(inside) as array:
                            held[name] = _read(path, name, array, sizes[inside], kinds)
    # A damaged zip raises all of these: encrypted, packed in an unknown way, cut short, …
    except DAMAGED as error:
        raise BootdiffError(f"{path} cannot be read as .npz ({first_line(error)}); make it anew.") from error
    return held


def _read(path: Path, name: str, file: IO[bytes], size: int, kinds: str) -> np.ndarray:
    check_unpacked(path, size)
    version = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, kind = read_header(file)
    if kind.kind not in kinds or kind.hasobject:
        expected = "real numbers" if kinds == NUMBERS else "words"
        raise BootdiffError(f"the {name} in {path} cannot be read (it holds {kind}, not {expected}); make it anew.")
    wanted = math.prod(shape) * kind.itemsize
    if wanted > MOST_BYTES or wanted != size - file.tell():
        raise BootdiffError(f"the {name} in {path} cannot be read (its shape {shape} is not its file's); make it anew.")
    values = np.frombuffer(file.read(wanted), kind).reshape(shape, order="F" if fortran else "C")
    return values if kinds == WORDS else values.astype(np.float64 if kind.kind == "f" else np.int64)
