"""Where samples are saved: a grid in one picture, or a folder with one file for each sample."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import torch

from bootdiff.builtin import check_output_name
from bootdiff.core.errors import BootdiffError
from bootdiff.data.decode import MOST_PIXELS
from bootdiff.data.pictures import grid, grid_size, to_image
from bootdiff.storage.files import write_whole
from bootdiff.system.out_of_memory import told_when_out_of_memory

#: the bytes that the smallest file takes on most disks
BLOCK = 4096


def check_output(output: Path) -> None:
    """Refuse a place where images cannot be saved, before they are made.

    Raises:
        BootdiffError: if it is another kind of file, or a folder that holds other files.
    """
    if output.name.lower() == ".png":
        raise BootdiffError(
            f"--output {output} is a suffix without a name; expected one such as grid.png, or a folder."
        )
    if is_grid(output):
        return
    check_output_name(output)
    if output.suffix:
        raise BootdiffError(f"--output {output}: expected a file that ends in .png, or a folder.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise BootdiffError(f"{output} exists and holds other files; choose a new folder.")


def check_room(shape: Sequence[int], count: int, columns: int | None, output: Path) -> None:
    """Refuse more images than a picture may have pixels for, or than the disk has room for.

    Args:
        shape: the shape of an image, (c, h, w).
        columns: the number of columns of the grid; None where any number will do.

    Raises:
        BootdiffError: if there are too many; the message says how much they would take.
    """
    if is_grid(output):
        width, height = grid_size(count, shape[-2], shape[-1], columns)
        if width * height > MOST_PIXELS:
            raise BootdiffError(
                f"a grid of {count:,} images would have {width:,}×{height:,} pixels; expected at most {MOST_PIXELS:,}: "
                "lower --num, or name a folder, which gets a file for each."
            )
        return
    there = next(parent for parent in output.absolute().parents if parent.is_dir())
    needed, free = count * max(BLOCK, math.prod(shape)), shutil.disk_usage(there).free
    if needed > free:
        raise BootdiffError(
            f"{count:,} images may need {needed / 1e9:,.0f} GB and {there} has {free / 1e9:,.0f} GB free; lower --num, "
            "or choose another disk."
        )


def is_grid(output: Path) -> bool:
    """Return whether all images go into one file."""
    return output.suffix.lower() == ".png"


def save_images(batches: Iterable[torch.Tensor], output: Path, columns: int | None) -> None:
    """Save a grid if ``output`` ends in .png, or else a folder with one file for each sample.

    In a folder each file is written when its sample is drawn.
    """
    if is_grid(output):
        with told_when_out_of_memory("lower --num, or name a folder, which gets a file for each image"):
            drawn = torch.cat(list(batches))
        write_whole(output, grid(drawn, columns).save)
        return
    drawing = iter(batches)
    first = next(drawing, None)  # whatever is loaded with it is loaded before the folder is begun

    def write(folder: Path) -> None:
        folder.mkdir()
        images = chain.from_iterable(drawing if first is None else chain([first], drawing))
        for i, image in enumerate(images):
            to_image(image).save(folder / f"{i:05d}.png")

    write_whole(output, write)
