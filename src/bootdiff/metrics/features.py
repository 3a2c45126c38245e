"""Feature spaces, in which Fréchet and other distances are measured.

Figures of different spaces cannot be compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from bootdiff.builtin import DIGITS, FASHION
from bootdiff.builtin.classifier import DigitsClassifier
from bootdiff.config.teacher import names_function
from bootdiff.core.errors import BootdiffError, nearest
from bootdiff.data.pictures import to_pixels, to_unit
from bootdiff.storage.files import file_hash

#: the number of images that a large network sees at a time
PART = 64


class Features(Protocol):
    """A feature space: it maps images (b, c, h, w) in [−1, 1] to feature vectors (b, d)."""

    @property
    def name(self) -> str:
        """Return the space's name, a readable word and a hash of its content, which is kept beside every figure."""
        ...

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Return (channels, height, width) of the images it takes.

        None stands for images of any size, with one channel or three.
        """
        ...

    @property
    def knows_labels(self) -> bool:
        """Whether its logits are for the labels that a teacher is asked for, not for another data set's classes."""
        ...

    def __call__(self, images: Tensor) -> Tensor: ...

    def read(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return features (b, d), and logits (b, classes) where the space is a classifier's; otherwise None."""
        ...


class DigitsFeatures:
    """The 64 features of the builtin, frozen digit classifier; larger images are averaged down to its 8×8 pixels.

    Args:
        side: the height and width of the images, a multiple of 8.
    """

    knows_labels = True

    def __init__(self, side: int = DigitsClassifier.shape[-1]) -> None:
        self.network = DigitsClassifier.builtin()
        own = DigitsClassifier.shape[-1]
        self.shape: tuple[int, ...] = (1, side, side)
        self.factor = side // own
        self.name = f"{DIGITS}-{file_hash(DigitsClassifier.file())}" + (f"-of-{side}" if side != own else "")

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of images (b, 1, side, side), (b, 64)."""
        return self.read(images)[0]

    def read(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return features (b, 64) and logits (b, 10)."""
        small = images if self.factor == 1 else avg_pool2d(images, self.factor)
        network = self.network.to(images.device)
        features = network.body(small)
        return features, network.head(features)


class PixelFeatures:
    """The feature space of the values themselves, for small samples of any shape; it depends on no training."""

    LARGEST = 1024
    knows_labels = False

    def __init__(self, shape: tuple[int, ...]) -> None:
        if math.prod(shape) > self.LARGEST:
            raise BootdiffError(
                f"the pixel feature space takes images of up to {self.LARGEST} values, got {tuple(shape)}; use an "
                ".onnx file."
            )
        self.shape: tuple[int, ...] = tuple(shape)
        self.name = "pixels-" + "x".join(map(str, shape))

    def __call__(self, images: Tensor) -> Tensor:
        """Return the images' pixels as features, (b, c · h · w)."""
        return images.flatten(1)

    def read(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the images' pixels as features, (b, c · h · w), and None, because pixels give no logits."""
        return self(images), None


def load_features(name: str, shape: tuple[int, ...]) -> Features:
    """Return the feature space that a name stands for.

    The names are ``digits``, ``fashion`` and ``pixels``; the path of an ``.onnx`` file; ``inception:FILE`` with the
    FID's weights; or ``dinov2:`` or ``clip:`` followed by a folder or a hub id of transformers.

    Args:
        shape: the shape of the images to be measured, for which the pixel space is made.

    Raises:
        BootdiffError: if there is no such space, or its file cannot be read.
    """
    from bootdiff.metrics.onnx_features import OnnxFeatures

    if names_function(name):
        raise BootdiffError(
            f"{name} is a function of a Python file, which runs only where the command line names it, by --features; "
            "from Python give the function itself."
        )
    kind, colon, where = name.partition(":")
    if colon and where and kind in NETWORKS:
        return NETWORKS[kind](where)
    if Path(name).suffix == ".onnx":
        return OnnxFeatures(Path(name))
    if name == DIGITS:
        fits = len(shape) == 3 and shape[0] == 1 and shape[1] == shape[2] and shape[1] % DigitsClassifier.shape[-1] == 0
        return DigitsFeatures(shape[-1]) if fits else DigitsFeatures()
    if name == FASHION:
        return OnnxFeatures.fashion()
    if name == "pixels":
        return PixelFeatures(shape)
    forms = {
        DIGITS: "",
        FASHION: "",
        "pixels": "",
        "teacher": "",
        "inception": ":FILE",
        "dinov2": ":FOLDER",
        "clip": ":FOLDER",
    }
    known = ", ".join([*(word + form for word, form in forms.items()), "module.py:function"])
    hint = nearest(kind, forms) if kind not in forms else ""
    raise BootdiffError(f"there is no feature space '{name}'; expected {known} or an .onnx file.{hint}")


def as_saved(images: Tensor, name: str) -> Tensor:
    """Return images as they would be read from a saved file: (b, 3, h, w) in [−1, 1], rounded to 256 levels.

    Args:
        name: the feature space's name, for the message.

    Raises:
        BootdiffError: if the images have neither one channel nor three.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise BootdiffError(f"{name} takes images (b, c, h, w) of 1 or 3 channels, got {tuple(images.shape)}.")
    return to_unit(to_pixels(images)).expand(-1, 3, -1, -1)


@torch.no_grad()
def in_parts(ask: Callable[[Tensor], tuple[Tensor, ...]], images: Tensor) -> tuple[Tensor, ...]:
    """Return what a large network answers when it is asked for a few images at a time.

    It computes in full float32 (no TF32), because figures are kept for long.
    """
    with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
        answers = [ask(part) for part in images.split(PART)]
    return tuple(torch.cat(parts) for parts in zip(*answers, strict=True))


def _inception(where: str) -> Features:
    from bootdiff.metrics.inception import InceptionFeatures

    return InceptionFeatures(Path(where))


def _dinov2(where: str) -> Features:
    from bootdiff.metrics.transformer_features import dinov2

    return dinov2(where)


def _clip(where: str) -> Features:
    from bootdiff.metrics.transformer_features import clip

    return clip(where)


#: the feature spaces whose network the user brings, by the word before the colon
NETWORKS: dict[str, Callable[[str], Features]] = {"inception": _inception, "dinov2": _dinov2, "clip": _clip}
