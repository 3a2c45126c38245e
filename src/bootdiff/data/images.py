"""Reading image data sets: the builtin digits, a folder of images, IDX files, and parquet with encoded images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from PIL import ImageOps
from torch import Tensor

from bootdiff.core.errors import BootdiffError, shown
from bootdiff.data.decode import decode, open_image
from bootdiff.data.hub import data_folder
from bootdiff.data.idx import read_idx
from bootdiff.data.parquet import column_names, read_column
from bootdiff.storage.reading import check_regular
from bootdiff.system.notes import note

SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".jp2", ".avif"),
}
#: the suffixes of pictures that are not read
OTHERS = {
    *(".heic", ".heif", ".jxl", ".svg", ".psd", ".raw", ".dng", ".cr2", ".nef", ".arw"),
    *(".ico", ".tga", ".exr", ".hdr"),
}


def load_images(data: str, side: int | None = None) -> Tensor:
    """Return all images of a data set, (n, c, h, w) in uint8.

    Args:
        side: the side in pixels of the squares to which image files (not IDX) are fitted, cut from their middle; None
            leaves them as they are.
        data: ``digits``; a folder of images, or of parquet or IDX files; one IDX file (gzipped or not) or parquet file;
            ``hf:NAME`` for the parquet files of a data set of the hub.

    Raises:
        BootdiffError: if the data set cannot be read, or its images differ in size or channels; the message names the
            file.
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
    """Return how many images a data set has, and an iterator over them, (b ≤ size, c, h, w) in uint8.

    The images of a folder are read when they are asked for.

    Raises:
        BootdiffError: for whatever ``load_images`` refuses; in a folder of images, only when the one in question is
            read.
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
    """Return the kind of a data set, and its files in their order; the kind is digits, images or tables.

    Raises:
        BootdiffError: if there is no data set of this name, or it holds no images.
    """
    path = data_folder(data)
    if not data or not path.exists():  # the empty name would be the present folder
        if data == "digits":
            return "digits", []
        raise BootdiffError(
            f"no data set at '{data}'; expected 'digits', a folder of images, IDX files or parquet with image bytes."
        )
    if not path.is_dir():
        check_regular(path, "data set")
        return "tables", [path]
    files = _files(path)
    if path != Path(data):  # of the hub, whose pictures are examples
        files = [file for file in files if file.suffix == ".parquet"]
    images = [p for p in files if p.suffix.lower() in SUFFIXES]
    left = sorted({p.suffix.lower() for p in files} & OTHERS)
    if left:
        count = sum(p.suffix.lower() in OTHERS for p in files)
        note(f"{count} files of {data} are left out ({', '.join(left)} is not read); convert them to PNG to have them.")
    if images:
        return "images", images
    # In the layout of MNIST and of the hub, training files say so in their names.
    tables = [p for p in files if p.suffix == ".parquet" or "idx3" in p.name]
    training = [p for p in tables if "train" in p.name] or tables
    if not training:
        raise BootdiffError(f"{data} holds no images: expected PNG or JPEG files, IDX image files or parquet.")
    return "tables", training


def _files(root: Path) -> list[Path]:
    """Return every file below a folder, sorted; links are followed, and hidden names are left out.

    Raises:
        BootdiffError: for a link to nothing or to a folder around it, and for an image that is no regular file.
    """
    found = []
    for here, folders, files in os.walk(root, onerror=_refused, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            _check_no_loop(Path(here, name))
        found += [Path(here, name) for name in files if not name.startswith(".")]
    for path in found:
        if path.suffix.lower() in SUFFIXES or path.is_symlink():
            check_regular(path, "picture")
    return sorted(found)


def _refused(error: OSError) -> NoReturn:
    raise BootdiffError(f"{error.filename} cannot be read ({error.strerror}); expected a folder of images.") from error


def _check_no_loop(path: Path) -> None:
    if path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve()):
        raise BootdiffError(f"{path} is a link to a folder that it lies in; remove it.")


def load_digits() -> Tensor:
    """Return scikit-learn's 1,797 handwritten digits, (1797, 1, 8, 8) in uint8.

    Raises:
        BootdiffError: if scikit-learn is not installed.
    """
    return torch.from_numpy(np.rint(_digits().images * (255 / 16)).astype(np.uint8))[:, None]


def digit_labels() -> Tensor:
    """Return the labels of the digits, (1797,) in int64."""
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


def _read_idx(path: Path) -> Tensor:
    values = read_idx(path)
    if values.ndim not in (3, 4):
        raise BootdiffError(f"{path} is no IDX file of images: expected uint8 values of shape (n, height, width).")
    pixels = torch.from_numpy(values)
    return pixels[:, None] if values.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()


def _read_parquet(path: Path, side: int | None) -> Tensor:
    known = column_names(path)
    name = next((name for name in ("image.bytes", "image", "img", "bytes") if name in known), None)
    if name is None:
        raise BootdiffError(f"{path} has no image column; expected 'image' or 'image.bytes', got {shown(known, 120)}.")
    cells = enumerate(read_column(path, name, _encoded))
    return _stack((f"{path} row {i}", _decode(_bytes(cell, path, i), f"{path} row {i}", side)) for i, cell in cells)


def _encoded(name: str, kind: Any) -> str | None:
    """Return what is wrong with a column of this arrow type; None where its cells hold image files."""
    import pyarrow

    held = kind
    if pyarrow.types.is_struct(held):
        place = held.get_field_index("bytes")
        held = held.field(place).type if place >= 0 else held
    held = held.value_type if pyarrow.types.is_dictionary(held) else held
    if pyarrow.types.is_binary(held) or pyarrow.types.is_large_binary(held) or pyarrow.types.is_null(held):
        return None
    return f"the column {name} holds {shown(str(kind), 60)}; expected image files, as binary or a struct with 'bytes'"


def _bytes(cell: Any, path: Path, row: int) -> bytes:
    held = cell.get("bytes") if isinstance(cell, dict) else cell
    if held is None:
        raise BootdiffError(f"{path} row {row} holds no image; leave such rows out, or put the files' bytes there.")
    return held


def _decode(source: Path | bytes, name: str, side: int | None) -> np.ndarray:
    return decode(source, name) if side is None else np.asarray(ImageOps.fit(open_image(source, name), (side, side)))


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
