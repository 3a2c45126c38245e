"""IDX files, the format of MNIST: two zero bytes, a type (8 = uint8), the number of dimensions, these, the values."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

from bootdiff.core.errors import BootdiffError
from bootdiff.storage.unpacking import open_bytes

#: the bytes that are read at a time, because a header may claim more than the file holds
BLOCK = 2**20


def read_idx(path: Path) -> np.ndarray:
    """Return the values of an IDX file, gzipped or not, as an array in uint8 of the shape that it states.

    Raises:
        BootdiffError: if it is no IDX file, holds other values than uint8, or holds none at all.
    """
    with open_bytes(path, "IDX file") as file:
        head = file.read(4)
        zero, kind, ndim = struct.unpack(">HBB", head) if len(head) == 4 else (1, 0, 0)
        sizes = file.read(4 * ndim)
        if zero != 0 or kind != 8 or not 1 <= ndim <= 4 or len(sizes) != 4 * ndim:
            raise BootdiffError(
                f"{path} cannot be read as an IDX file of uint8 values in one to four dimensions; expected one, "
                "parquet, or a folder of images."
            )
        shape = struct.unpack(f">{ndim}I", sizes)
        count, values = math.prod(shape), bytearray()
        while len(values) <= count and (block := file.read(min(BLOCK, count + 1 - len(values)))):
            values += block
    if count == 0:
        raise BootdiffError(f"{path} is an IDX file of shape {shape}, which holds nothing; expected images or labels.")
    if len(values) != count:
        raise BootdiffError(f"{path} is an IDX file of shape {shape} but was cut short or holds more; fetch it again.")
    return np.frombuffer(values, np.uint8).reshape(shape)
