"""Where samples are saved: a grid in one picture, a folder with one file for each sample, or arrays."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from bootdiff.builtin import check_output_name
from bootdiff.core.errors import BootdiffError
from bootdiff.data.decode import MOST_PIXELS
from bootdiff.data.pictures import grid, grid_size, is_picture, on_scale, own_scale, scale_in_words, to_image
from bootdiff.storage.arrays import MOST_BYTES
from bootdiff.storage.files import write_whole
from bootdiff.system.notes import note
from bootdiff.system.out_of_memory import told_when_out_of_memory

#: the bytes that the smallest file takes on most disks
BLOCK = 4096


def check_output(output: Path) -> None:
    """Refuse a place where images cannot be saved, before they are made.

    Raises:
        BootdiffError: if it is another kind of file, or a folder that holds other files.
    """
    if output.name.lower() in (".png", ".npz"):
        raise BootdiffError(
            f"--output {output} is a suffix without a name; expected one such as grid.png, or a folder."
        )
    if is_grid(output) or is_arrays(output):
        return
    check_output_name(output)
    if output.suffix:
        raise BootdiffError(f"--output {output}: expected a file that ends in .png or .npz, or a folder.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise BootdiffError(f"{output} exists and holds other files; choose a new folder.")


def check_room(shape: Sequence[int], count: int, columns: int | None, output: Path) -> None:
    """Refuse more images than a picture may have pixels for, or than the disk has room for.

    Args:
        shape: the shape of an image, (c, h, w).
        columns: the number of columns of the grid; None where any number will do.

    Raises:
        BootdiffError: if there are too many, or no picture fits them; the message says what to do.
    """
    if not is_arrays(output) and not is_picture(shape):
        raise BootdiffError(
            f"samples of shape {tuple(shape)} are no pictures of 1 or 3 channels; write arrays: --output FILE.npz."
        )
    if is_grid(output):
        width, height = grid_size(count, shape[-2], shape[-1], columns)
        if width * height > MOST_PIXELS:
            raise BootdiffError(
                f"a grid of {count:,} images would have {width:,}×{height:,} pixels; expected at most {MOST_PIXELS:,}: "
                "lower --num, or name a folder, which gets a file for each."
            )
        return
    there = next(parent for parent in output.absolute().parents if parent.is_dir())
    size = 4 * math.prod(shape) if is_arrays(output) else max(BLOCK, math.prod(shape))
    if is_arrays(output) and count * size > MOST_BYTES:
        note(
            f"the array will have more than {MOST_BYTES >> 30} GiB, and bootdiff reads none so large as a --reference."
        )
    needed, free = count * size, shutil.disk_usage(there).free
    if needed > free:
        raise BootdiffError(
            f"{count:,} images may need {needed / 1e9:,.0f} GB and {there} has {free / 1e9:,.0f} GB free; lower --num, "
            "or choose another disk."
        )


def is_grid(output: Path) -> bool:
    """Return whether all images go into one file."""
    return output.suffix.lower() == ".png"


def is_arrays(output: Path) -> bool:
    """Return whether the values themselves are saved."""
    return output.suffix.lower() == ".npz"


def save_images(batches: Iterable[torch.Tensor], output: Path, columns: int | None, own: bool = False) -> list[str]:
    """Save a grid for ``.png``, an array for ``.npz``, or else a folder with one file for each sample.

    In a folder each file is written when its sample is drawn. The array is called ``images``, (n, *shape) in float32.

    Args:
        own: whether pictures are brought to their own scale if values lie outside [−1, 1]; otherwise they are clipped,
            as stock pipelines clip them.

    Returns:
        What there is to say of the pictures' scale, a line each.
    """
    if is_arrays(output):
        _save_arrays(batches, output)
        return []
    if is_grid(output):
        with told_when_out_of_memory("lower --num, or name a folder, which gets a file for each image"):
            drawn = torch.cat(list(batches))
        scale = own_scale([drawn]) if own else None
        write_whole(output, grid(on_scale(drawn, scale), columns).save)
        return [scale_in_words(scale)] if scale is not None else []
    drawing = iter(batches)
    first = next(drawing, None)  # whatever is loaded with it is loaded before the folder is begun
    scaled = 0

    def write(folder: Path) -> None:
        nonlocal scaled
        folder.mkdir()
        images: Iterator[torch.Tensor] = chain.from_iterable(drawing if first is None else chain([first], drawing))
        for i, image in enumerate(images):
            scale = own_scale([image]) if own else None
            scaled += scale is not None
            to_image(on_scale(image, scale)).save(folder / f"{i:05d}.png")

    write_whole(output, write)
    return [f"{scaled} of them have values outside [−1, 1], and each is pictured on its own scale."] if scaled else []


def _save_arrays(batches: Iterable[torch.Tensor], output: Path) -> None:
    with told_when_out_of_memory("lower --num"):
        drawn = torch.cat(list(batches)).numpy()

    def write(path: Path) -> None:
        with path.open("wb") as file:  # numpy would add a suffix to a name
            np.savez(file, images=drawn)

    write_whole(output, write)
