"""Grids of samples as pictures."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

#: small images are enlarged, without smoothing, to at least this many pixels
SMALLEST_SIDE = 48
GAP = 2


def to_image(image: Tensor) -> Image.Image:
    """One image (c, h, w) in [−1, 1], c = 1 or 3; of other channel counts the first is shown."""
    pixels = to_pixels(image.detach().cpu()).numpy()
    return Image.fromarray(pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0])


def grid(images: Tensor, columns: int | None = None) -> Image.Image:
    """Images (n, c, h, w) side by side, row by row; without ``columns`` roughly square, and whole if it can be."""
    height, width = images.shape[-2:]
    columns, scale = columns or _columns(len(images)), _scale(width)
    canvas = Image.new("RGB", grid_size(len(images), height, width, columns), "white")
    for i, image in enumerate(images):
        tile = to_image(image).convert("RGB").resize((width * scale, height * scale), Image.Resampling.NEAREST)
        canvas.paste(tile, ((i % columns) * (width * scale + GAP), (i // columns) * (height * scale + GAP)))
    return canvas


def grid_size(count: int, height: int, width: int, columns: int | None = None) -> tuple[int, int]:
    """(width, height) of the grid of so many images."""
    columns, scale = columns or _columns(count), _scale(width)
    rows = math.ceil(count / columns)
    return columns * (width * scale + GAP) - GAP, rows * (height * scale + GAP) - GAP


def _columns(count: int) -> int:
    square = math.ceil(math.sqrt(count))
    return next((n for n in range(square, 2 * square) if count % n == 0), square)


def _scale(width: int) -> int:
    return max(1, math.ceil(SMALLEST_SIDE / width))


def rows_grid(rows: Sequence[Tensor]) -> Image.Image:
    """Several batches of images, (n, c, h, w) each, one above the other."""
    return grid(torch.cat(list(rows)), columns=len(rows[0]))


def data_uri(picture: Image.Image) -> str:
    """A picture as a ``data:`` address for a self-contained page."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def is_picture(shape: Sequence[int]) -> bool:
    """Whether samples of this shape can be shown: (c, h, w) with 1 or 3 channels."""
    return len(shape) == 3 and shape[0] in (1, 3)


def to_unit(pixels: Tensor) -> Tensor:
    """uint8 pixels to float32 in [−1, 1]."""
    return pixels.float() / 127.5 - 1


def to_pixels(images: Tensor) -> Tensor:
    """Images in [−1, 1], clipped, to uint8 pixels."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
