"""Feature spaces: what a Fréchet distance is measured in. Figures of different spaces cannot be compared."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from bootdiff.builtin.classifier import DigitsClassifier
from bootdiff.errors import BootdiffError, nearest


class Features(Protocol):
    """Maps images (b, c, h, w) in [−1, 1] to feature vectors (b, d)."""

    #: name and content hash, kept beside every figure
    name: str
    #: (channels, height, width) of the images it takes
    shape: tuple[int, ...]

    def __call__(self, images: Tensor) -> Tensor: ...

    def read(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features, and logits (b, classes) where the space is a classifier's."""
        ...


class DigitsFeatures:
    """The 64 features of the shipped, frozen digit classifier; larger images are averaged to its size.

    Args:
        side: of the images, a multiple of 8.
    """

    def __init__(self, side: int = DigitsClassifier.shape[-1]) -> None:
        self.network = DigitsClassifier.builtin()
        own = DigitsClassifier.shape[-1]
        self.shape: tuple[int, ...] = (1, side, side)
        self.factor = side // own
        self.name = f"digits-{_file_hash(DigitsClassifier.file())}" + (f"-of-{side}" if side != own else "")

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


class OnnxFeatures:
    """Any ONNX file with one image input and an output called ``features`` (or its first output).

    An output called ``logits``, of another shape, makes it a classifier.
    """

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise BootdiffError(
                "ONNX features need onnxruntime; install it with: pip install 'bootdiff[onnx]'."
            ) from None
        try:
            self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises its own kinds for a damaged file
            raise BootdiffError(
                f"{path} cannot be read as an ONNX file ({str(error).splitlines()[0][:160]})."
            ) from error
        self.input = self.session.get_inputs()[0]
        dims = self.input.shape
        if len(dims) != 4 or not all(isinstance(d, int) for d in dims[1:]):
            raise BootdiffError(f"{path} should take images of shape (b, c, h, w) with fixed c, h, w; it takes {dims}.")
        self.shape: tuple[int, ...] = (dims[1], dims[2], dims[3])
        outputs = [o.name for o in self.session.get_outputs()]
        self.output = "features" if "features" in outputs else outputs[0]
        self.outputs = [self.output, *(["logits"] if "logits" in outputs and self.output != "logits" else [])]
        self.name = f"{path.stem}-{_file_hash(path)}"

    def __call__(self, images: Tensor) -> Tensor:
        """(b, d)."""
        return self.read(images)[0]

    def read(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """(b, d), and (b, classes) where there are logits."""
        values = self.session.run(self.outputs, {self.input.name: images.float().cpu().numpy()})
        features, *logits = map(torch.from_numpy, values)
        return features, logits[0] if logits else None


def load_features(name: str, shape: tuple[int, ...]) -> Features:
    """A feature space: ``digits``, ``pixels``, or the path of an ONNX file.

    Args:
        shape: of the images to be measured; the pixel space is made for it.

    Raises:
        BootdiffError: if there is no such space.
    """
    path = Path(name)
    if path.suffix == ".onnx":
        if not path.is_file():
            raise BootdiffError(f"no ONNX file at {name}.")
        return OnnxFeatures(path)
    if name == "digits":
        fits = len(shape) == 3 and shape[0] == 1 and shape[1] == shape[2] and shape[1] % DigitsClassifier.shape[-1] == 0
        return DigitsFeatures(shape[-1]) if fits else DigitsFeatures()
    if name == "pixels":
        return PixelFeatures(shape)
    hint = nearest(name, ["digits", "pixels"])
    raise BootdiffError(f"there is no feature space '{name}'; expected digits, pixels or an .onnx file.{hint}")


def _file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]
