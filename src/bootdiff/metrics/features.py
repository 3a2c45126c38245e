"""Feature spaces: what a Fréchet distance is measured in. Figures of different spaces cannot be compared."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from bootdiff.builtin.classifier import DigitsClassifier
from bootdiff.errors import BootdiffError, nearest


class Features(Protocol):
    """Maps images (b, c, h, w) in [−1, 1] to feature vectors (b, d)."""

    #: name and content hash, kept beside every figure
    name: str
    #: (channels, height, width) of the images it takes
    shape: tuple[int, int, int]

    def __call__(self, images: Tensor) -> Tensor: ...


class DigitsFeatures:
    """The 64 features of the shipped, frozen digit classifier."""

    shape = DigitsClassifier.shape

    def __init__(self) -> None:
        self.network = DigitsClassifier.builtin()
        self.name = f"digits-{_file_hash(DigitsClassifier.file())}"

    def __call__(self, images: Tensor) -> Tensor:
        """(b, 64)."""
        return self.network.to(images.device).body(images)


class PixelFeatures:
    """The pixels themselves, for small images: a space that no training has seen."""

    LARGEST = 1024

    def __init__(self, shape: tuple[int, ...]) -> None:
        if math.prod(shape) > self.LARGEST:
            raise BootdiffError(
                f"the pixel feature space takes images of up to {self.LARGEST} values, got {tuple(shape)}; use an "
                ".onnx file."
            )
        self.shape = (shape[0], shape[1], shape[2])
        self.name = "pixels-" + "x".join(map(str, shape))

    def __call__(self, images: Tensor) -> Tensor:
        """(b, c · h · w)."""
        return images.flatten(1)


class OnnxFeatures:
    """Any ONNX file with one image input and an output called ``features`` (or its first output)."""

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
        self.shape = (dims[1], dims[2], dims[3])
        outputs = [o.name for o in self.session.get_outputs()]
        self.output = "features" if "features" in outputs else outputs[0]
        self.name = f"{path.stem}-{_file_hash(path)}"

    def __call__(self, images: Tensor) -> Tensor:
        """(b, d)."""
        values = self.session.run([self.output], {self.input.name: images.float().cpu().numpy()})[0]
        return torch.from_numpy(values)


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
        return DigitsFeatures()
    if name == "pixels":
        return PixelFeatures(shape)
    hint = nearest(name, ["digits", "pixels"])
    raise BootdiffError(f"there is no feature space '{name}'; expected digits, pixels or an .onnx file.{hint}")


def _file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]
