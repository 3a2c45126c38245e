"""The data that a teacher is trained on: images of the size that is asked for, with their labels or captions."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from bootdiff.core.errors import BootdiffError
from bootdiff.data.data_set import Data, check_count
from bootdiff.data.images import load_images
from bootdiff.data.labels import load_captions, load_class_names, load_labels
from bootdiff.data.resizing import resized
from bootdiff.teaching.settings import TeacherSettings


def load_data(data: str, settings: TeacherSettings) -> Data:
    """Return images of the size that is asked for, with the labels or captions that this kind of teacher needs.

    Raises:
        BootdiffError: if they cannot be read, lack labels or captions, or do not fit the network.
    """
    pixels = prepare_images(load_images(data, settings.resize), settings)
    if settings.kind == "unconditional":
        return Data(pixels)
    if settings.kind == "classes":
        return _with_labels(data, pixels)
    captions = load_captions(data)
    check_count(data, len(pixels), len(captions.rows), "captions")
    return Data(pixels, captions=captions)


def _with_labels(data: str, pixels: Tensor) -> Data:
    labels = load_labels(data)
    check_count(data, len(pixels), len(labels), "labels")
    there = labels.unique()
    missing = (there != torch.arange(len(there))).nonzero()
    if len(missing):
        first = int(missing[0])
        raise BootdiffError(f"{data} has labels up to {int(labels.max())} but no image of {first}; renumber.")
    return Data(pixels, labels=labels, names=load_class_names(data))


def prepare_images(pixels: Tensor, settings: TeacherSettings) -> Tensor:
    """Return the images resized and padded to ``image_size`` with black, (n, c, size, size) in uint8.

    It is checked that the networks can halve them often enough.

    Raises:
        BootdiffError: if the images are not square, are larger than ``image_size``, or cannot be halved so often.
    """
    height, width = pixels.shape[-2:]
    if height != width:
        raise BootdiffError(f"expected square images, got {width}×{height}; crop or pad them.")
    if settings.resize is not None and settings.resize != height:
        pixels = resized(pixels, settings.resize)
        height = settings.resize
    size = settings.image_size or height
    if size < height:
        raise BootdiffError(f"image_size is {size} but the images are {height}×{height}; resize them or raise it.")
    levels = len(settings.channels)
    if settings.kind == "stable-diffusion":  # its denoiser halves what its autoencoder has halved
        levels += len(settings.autoencoder_channels) - 1
    if size % 2 ** (levels - 1):
        raise BootdiffError(
            f"{levels} levels halve the image {levels - 1} times, and {size} cannot be; set image_size "
            f"to {math.ceil(size / 2 ** (levels - 1)) * 2 ** (levels - 1)} or use fewer channels."
        )
    before = (size - height) // 2
    return pad(pixels, (before, size - height - before) * 2)
