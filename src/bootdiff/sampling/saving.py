"""Where samples go: a grid in one picture, or a folder with one file a sample."""

from __future__ import annotations

from pathlib import Path

import torch

from bootdiff.core.errors import BootdiffError
from bootdiff.data.pictures import grid, to_image
from bootdiff.storage.files import write_whole


def check_output(output: Path) -> None:
    """Refuse a place that images cannot go to, before they are made.

    Raises:
        BootdiffError: for another kind of file, or a folder that holds other files.
    """
    if output.suffix.lower() == ".png":
        return
    if output.suffix:
        raise BootdiffError(f"--output {output}: expected a file that ends in .png, or a folder.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise BootdiffError(f"{output} exists and holds other files; choose a new folder.")


def save_images(images: torch.Tensor, output: Path, columns: int | None) -> None:
    """A grid where ``output`` ends in .png, else a folder with one file a sample."""
    if output.suffix.lower() == ".png":
        write_whole(output, grid(images, columns).save)
        return

    def write(folder: Path) -> None:
        folder.mkdir()
        for i, image in enumerate(images):
            to_image(image).save(folder / f"{i:05d}.png")

    write_whole(output, write)
