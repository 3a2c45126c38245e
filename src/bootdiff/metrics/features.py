"""Feature spaces: what a Fréchet distance is measured in. Figures of different spaces cannot be compared."""

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
from bootdiff.core.errors import BootdiffError, nearest
from bootdiff.data.pictures import to_pixels, to_unit
from bootdiff.storage.files import file_hash

#: images that a large network sees at a time
PART = 64


class Features(Protocol):
    """Maps images (b, c, h, w) in [−1, 1] to feature vectors (b, d)."""

    @property
    def name(self) -> str:
        """A readable word and a hash of the space's content, kept beside every figure."""
        ...

    @property
    def shape(self) -> tuple[int, ...] | None:
        """(channels, height, width) of the images it takes; None: images of any size, grey or in three channels."""
        ...

    @property
    def knows_labels(self) -> bool:
        """Whether its logits are for the labels that a teacher is asked for, not for another data set's classes."""
        ...

    def __call__(self, images: Tensor) -> Tensor: ...

    def read(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features, and logits (b, classes) where the space is a classifier's."""
        ...


class DigitsFeatures:
    """The 64 features of the shipped, frozen digit classifier; larger images are averaged to its size.

    Args:
        side: of the images, a multiple of 8.
    """

    knows_labels = True

    def __init__(self, side: int = DigitsClassifier.shape[-1]) -> None:
        self.network = DigitsClassifier.builtin()
        own = DigitsClassifier.shape[-1]
        self.shape: tuple[int, ...] = (1, side, side)
        self.factor = side // own
        self.name = f"{DIGITS}-{file_hash(DigitsClassifier.file())}" + (f"-of-{side}" if side != own else "")

    def __call__(self, images: Tensor) -> Tensor:
        """(b, 64)."""
        return self.read(images)[0]

    def read(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """(b, 64) and (b, 10)."""
        small = images if self.factor == 1 else avg_pool2d(images, self.factor)
        network = self.network.to(images.device)
        features = network.body(small)
        return features, network.head(features)


class PixelFeatures:
    """The pixels themselves, for small images: a space that no training has seen."""

    LARGEST = 1024
    knows_labels = False

    def __init__(self, shape: tuple[int, ...]) -> None:
        if math.prod(shape) > self.LARGEST:
            raise BootdiffError(
                f"the pixel feature space takes images of up to {self.LARGEST} values, got {tuple(shape)}; use an "
                ".onnx file."
            )
        self.shape: tuple[int, ...] = (shape[0], shape[1], shape[2])
        self.name = "pixels-" + "x".join(map(str, shape))

    def __call__(self, images: Tensor) -> Tensor:
        """(b, c · h · w)."""
        return images.flatten(1)

    def read(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Pixels know no classes."""
        return self(images), None


def load_features(name: str, shape: tuple[int, ...]) -> Features:
    """A feature space by name.

    ``digits``, ``fashion``, ``pixels``; the path of an ``.onnx`` file; ``inception:FILE`` with the FID's weights; or
    ``dinov2:`` and ``clip:`` with a folder or a hub id of transformers.

    Args:
        shape: of the images to be measured; the pixel space is made for it.

    Raises:
        BootdiffError: if there is no such space, or its file cannot be read.
    """
    from bootdiff.metrics.onnx_features import OnnxFeatures

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
    forms = {DIGITS: "", FASHION: "", "pixels": "", "inception": ":FILE", "dinov2": ":FOLDER", "clip": ":FOLDER"}
    known = ", ".join(word + form for word, form in forms.items())
    hint = nearest(kind, forms) if kind not in forms else ""
    raise BootdiffError(f"there is no feature space '{name}'; expected {known} or an .onnx file.{hint}")


def as_saved(images: Tensor, name: str) -> Tensor:
    """Images as a file of them would be read: three channels, 256 levels, (b, 3, h, w) in [−1, 1].

    Args:
        name: of the feature space, for the message.

    Raises:
        BootdiffError: if they have neither one channel nor three.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise BootdiffError(f"{name} takes images (b, c, h, w) of 1 or 3 channels, got {tuple(images.shape)}.")
    return to_unit(to_pixels(images)).expand(-1, 3, -1, -1)


@torch.no_grad()
def in_parts(ask: Callable[[Tensor], tuple[Tensor, ...]], images: Tensor) -> tuple[Tensor, ...]:
    """What a large network answers, asked for a few images at a time and in full float32: figures are kept for long."""
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


#: the spaces of networks that the user brings, by the word before the colon
NETWORKS: dict[str, Callable[[str], Features]] = {"inception": _inception, "dinov2": _dinov2, "clip": _clip}
