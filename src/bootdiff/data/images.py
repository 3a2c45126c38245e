"""Reading image data sets: the builtin digits, a folder, IDX files, parquet with encoded images."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from bootdiff.errors import BootdiffError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff"}


def load_images(data: str, side: int | None = None) -> Tensor:
    """All images of a data set, (n, c, h, w) in uint8.

    Args:
        side: fit image files (not IDX) to squares of this side, cut from their middle.
        data: ``digits``; a folder of images, or of parquet or IDX files; one IDX file (gzipped or not) or parquet file.

    Raises:
        BootdiffError: if it cannot be read, or its images differ in size or channels; the file is named.
    """
    kind, files = find_data(data)
    if kind == "digits":
        return load_digits()
    if kind == "images":
        return _stack((str(p), _decode(p, str(p), side)) for p in files)
    parts = [_read_file(p, side) for p in files]
    for path, part in zip(files, parts, strict=True):
        if part.shape[1:] != parts[0].shape[1:]:
            raise BootdiffError(
                f"{path} has images of shape {tuple(part.shape[1:])} but {files[0]} of {tuple(parts[0].shape[1:])}; "
                "name one of them."
            )
    return torch.cat(parts)


def image_batches(data: str, size: int) -> tuple[int, Iterator[Tensor]]:
    """How many images a data set has, and these, (b ≤ size, c, h, w) in uint8; a folder's are read when asked for.

    Raises:
        BootdiffError: as ``load_images`` does; for a folder of images when the one in question is read.
    """
    kind, files = find_data(data)
    if kind == "images":
        return len(files), _read_batches(files, size)
    pixels = load_images(data)
    return len(pixels), iter(pixels.split(size))


def _read_batches(files: Sequence[Path], size: int) -> Iterator[Tensor]:
    first: Tensor | None = None
    for start in range(0, len(files), size):
        part = files[start : start + size]
        pixels = _stack((str(p), _decode(p, str(p), None)) for p in part)
        first = pixels if first is None else first
        if pixels.shape[1:] != first.shape[1:]:
            raise BootdiffError(
                f"{part[0]} has the shape {tuple(pixels.shape[1:])} but the first image {tuple(first.shape[1:])}; "
                "all must share one."
            )
        yield pixels


def find_data(data: str) -> tuple[Literal["digits", "images", "tables"], list[Path]]:
    """What kind of data set this is, and its files in their order.

    Raises:
        BootdiffError: if there are none.
    """
    path = Path(data)
    if not path.exists():
        if data == "digits":
            return "digits", []
        raise BootdiffError(
            f"no data set at '{data}'; expected 'digits', a folder of images, IDX files or parquet with image bytes."
        )
    if path.is_file():
        return "tables", [path]
    files = sorted(p for p in path.rglob("*") if p.is_file())
    images = [p for p in files if p.suffix.lower() in SUFFIXES]
    if images:
        return "images", images
    # In the layout of MNIST and of the hub, training files say so in their names.
    tables = [p for p in files if p.suffix == ".parquet" or "idx3" in p.name]
    training = [p for p in tables if "train" in p.name] or tables
    if not training:
        raise BootdiffError(f"{data} holds no images: expected PNG or JPEG files, IDX image files or parquet.")
    return "tables", training


def load_digits() -> Tensor:
    """scikit-learn's 1,797 handwritten digits, (1797, 1, 8, 8) in uint8.

    Raises:
        BootdiffError: if scikit-learn is not installed.
    """
    return torch.from_numpy(np.rint(_digits().images * (255 / 16)).astype(np.uint8))[:, None]


def digit_labels() -> Tensor:
    """The digits' labels, (1797,) in int64."""
    return torch.from_numpy(_digits().target).long()


def _digits():
    try:
        from sklearn.datasets import load_digits as load
    except ImportError:
        raise BootdiffError(
            "the digits data set needs scikit-learn; install it with: pip install 'bootdiff[train]'."
        ) from None
    return load()


def _read_file(path: Path, side: int | None) -> Tensor:
    if path.suffix == ".parquet":
        return _read_parquet(path, side)
    if path.suffix.lower() in SUFFIXES:
        raise BootdiffError(f"{path} is one image; expected a data set: a folder of images, IDX files or parquet.")
    return _read_idx(path)


def read_idx(path: Path) -> np.ndarray:
    """An IDX file: two zero bytes, a type (8 = uint8), the number of dimensions, the dimensions, the values.

    Raises:
        BootdiffError: if it is none, or holds other values than uint8.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zero, kind, ndim = struct.unpack(">HBB", raw[:4])
        dims = struct.unpack(f">{ndim}I", raw[4 : 4 + 4 * ndim])
        values = np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim)
    except (OSError, EOFError, struct.error, ValueError, zlib.error) as error:
        raise BootdiffError(f"{path} cannot be read as an IDX file ({error}).") from error
    if zero != 0 or kind != 8 or ndim == 0 or values.size != np.prod(dims):
        raise BootdiffError(
            f"{path} is no IDX file of uint8 values, or was cut short; expected one, a folder of images, or parquet."
        )
    return values.reshape(dims).copy()


def _read_idx(path: Path) -> Tensor:
    values = read_idx(path)
    if values.ndim not in (3, 4):
        raise BootdiffError(f"{path} is no IDX file of images: expected uint8 values of shape (n, height, width).")
    pixels = torch.from_numpy(values)
    return pixels[:, None] if values.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()


def parquet_columns(path: Path) -> Any:
    """A parquet file as pyarrow's table.

    Raises:
        BootdiffError: if it cannot be read.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise BootdiffError("parquet files need pyarrow; install it with: pip install 'bootdiff[train]'.") from None
    try:
        return pyarrow.parquet.read_table(path)
    except (OSError, ValueError) as error:
        raise BootdiffError(f"{path} cannot be read as parquet ({error}).") from error


def _read_parquet(path: Path, side: int | None) -> Tensor:
    table = parquet_columns(path)
    columns = [name for name in ("image.bytes", "image", "img", "bytes") if name in table.column_names]
    if not columns:
        raise BootdiffError(f"{path} has no image column; expected 'image' or 'image.bytes', got {table.column_names}.")
    cells = table.column(columns[0]).to_pylist()
    encoded = [cell["bytes"] if isinstance(cell, dict) else cell for cell in cells]
    return _stack((f"{path} row {i}", _decode(io.BytesIO(b), f"{path} row {i}", side)) for i, b in enumerate(encoded))


def _decode(source: Path | io.BytesIO, name: str, side: int | None) -> np.ndarray:
    try:
        with Image.open(source) as image:
            grey = image.mode in ("1", "L", "I", "I;16", "LA")
            plain = image.convert("L" if grey else "RGB")
            return np.asarray(plain if side is None else ImageOps.fit(plain, (side, side)))
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise BootdiffError(f"{name} cannot be read as an image ({error}).") from error


def _describe(array: np.ndarray) -> str:
    return f"{array.shape[1]}×{array.shape[0]} {'grey' if array.ndim == 2 else 'RGB'}"


def _stack(named: Iterable[tuple[str, np.ndarray]]) -> Tensor:
    arrays: list[np.ndarray] = []
    for name, array in named:
        if arrays and array.shape != arrays[0].shape:
            raise BootdiffError(
                f"{name} is {_describe(array)} but the first image is {_describe(arrays[0])}; all must share "
                + (
                    "their colours: convert it."
                    if array.shape[:2] == arrays[0].shape[:2]
                    else "one size: resize them (train-teacher does, with --set resize=SIDE)."
                )
            )
        arrays.append(array)
    if not arrays:
        raise BootdiffError("the data set holds no images.")
    pixels = torch.from_numpy(np.stack(arrays))
    return pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
