"""A data set in memory: its images, and what is said of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from torch import Tensor

from bootdiff.core.errors import BootdiffError
from bootdiff.data.labels import Captions


@dataclass(frozen=True)
class Data:
    """Images, with what is known of them.

    Args:
        pixels: the images, (n, c, h, w) in uint8.
        labels: the class label of each image, (n,) in int64.
        captions: the captions of every image.
        names: the names of the classes, in the order of their labels, if the data have any.
    """

    pixels: Tensor
    labels: Tensor | None = None
    captions: Captions | None = None
    names: tuple[str, ...] = ()


def hash_data(data: Data) -> str:
    """Return a short hash of the pixels, and of their labels or captions."""
    digest = hashlib.blake2b(data.pixels.numpy().tobytes(), digest_size=8)
    if data.labels is not None:
        digest.update(data.labels.numpy().tobytes())
    if data.captions is not None:
        digest.update("\0".join(data.captions.texts).encode() + data.captions.rows.numpy().tobytes())
    return digest.hexdigest()


def check_count(name: str, images: int, said: int, what: str) -> None:
    """Refuse a data set whose images and labels, or captions, differ in number.

    Raises:
        BootdiffError: if they do.
    """
    if images != said:
        raise BootdiffError(f"{name} has {images} images and {said} {what}; expected one for every image.")
