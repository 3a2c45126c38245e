"""Images and grids of images as pictures, and conversions between pixels and values in [−1, 1]."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

#: the pixels of a side to which smaller images are enlarged, without smoothing
SMALLEST_SIDE = 48
GAP = 2


def to_image(image: Tensor) -> Image.Image:
    """Return a picture of one image (c, h, w) in [−1, 1]; where c is neither 1 nor 3, its first channel is shown."""
    pixels = to_pixels(image.detach().cpu()).numpy()
    return Image.fromarray(pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0])


def grid(images: Tensor, columns: int | None = None) -> Image.Image:
    """Return a picture of images (n, c, h, w) in [−1, 1] side by side, row by row.

    Without ``columns`` the grid is roughly square, with full rows where that is possible.
    """
    height, width = images.shape[-2:]
    columns, scale = columns or _columns(len(images)), _scale(width)
    canvas = Image.new("RGB", grid_size(len(images), height, width, columns), "white")
    for i, image in enumerate(images):
        tile = to_image(image).convert("RGB").resize((width * scale, height * scale), Image.Resampling.NEAREST)
        canvas.paste(tile, ((i % columns) * (width * scale + GAP), (i // columns) * (height * scale + GAP)))
    return canvas


def grid_size(count: int, height: int, width: int, columns: int | None = None) -> tuple[int, int]:
    """Return (width, height) in pixels of the grid of ``count`` images."""
    columns, scale = columns or _columns(count), _scale(width)
    rows = math.ceil(count / columns)
    return columns * (width * scale + GAP) - GAP, rows * (height * scale + GAP) - GAP


def _columns(count: int) -> int:
    square = math.ceil(math.sqrt(count))
    return next((n for n in range(square, 2 * square) if count % n == 0), square)


def _scale(width: int) -> int:
    return max(1, math.ceil(SMALLEST_SIDE / width))


def rows_grid(rows: Sequence[Tensor]) -> Image.Image:
    """Return a picture of several batches of images, (n, c, h, w) each, one above the other."""
    return grid(torch.cat(list(rows)), columns=len(rows[0]))


def data_uri(picture: Image.Image) -> str:
    """Return a picture as a ``data:`` address, for a page that needs no other file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def own_scale(images: Sequence[Tensor]) -> tuple[float, float] | None:
    """Return the lowest and the highest value of all images, if some lie outside [−1, 1]; otherwise None.

    Images of a module of one's own may have any scale, and clipping them would hide that.
    """
    low, high = min(float(one.min()) for one in images), max(float(one.max()) for one in images)
    return (low, high) if low < -1 or high > 1 else None


def on_scale(images: Tensor, scale: tuple[float, float] | None) -> Tensor:
    """Return images whose lowest and highest value are brought to −1 and 1; without a scale, as they are."""
    if scale is None:
        return images
    low, high = scale
    return (images - low) * (2 / max(high - low, 1e-12)) - 1


def scale_in_words(scale: tuple[float, float] | None) -> str:
    """Return a sentence on the scale of pictures; empty if they are pictured as they are."""
    return "" if scale is None else f"Values from {scale[0]:.3g} to {scale[1]:.3g} are pictured on that scale."


def is_picture(shape: Sequence[int]) -> bool:
    """Return whether samples of this shape can be shown: (c, h, w) with 1 or 3 channels."""
    return len(shape) == 3 and shape[0] in (1, 3)


def to_unit(pixels: Tensor) -> Tensor:
    """Return uint8 pixels as float32 values in [−1, 1], in the same shape."""
    return pixels.float() / 127.5 - 1


def to_pixels(images: Tensor) -> Tensor:
    """Return images in [−1, 1], clipped to that range, as uint8 pixels in the same shape."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
