"""A feature space from an ONNX file, the builtin ``fashion`` among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bootdiff.builtin import FASHION, builtin_folder
from bootdiff.errors import BootdiffError, first_line
from bootdiff.files import file_hash


class OnnxFeatures:
    """Any ONNX file with one image input and an output called ``features`` (or its first output).

    An output called ``logits``, of another shape, makes it a classifier.

    Args:
        title: the readable part of its name; the file's own by default.

    Raises:
        BootdiffError: if the file is missing, cannot be read, or takes no images of one fixed size.
    """

    def __init__(self, path: Path, title: str | None = None) -> None:
        self.session = _session(path)
        self.input = self.session.get_inputs()[0]
        dims = self.input.shape
        if len(dims) != 4 or not all(isinstance(d, int) for d in dims[1:]):
            raise BootdiffError(f"{path} should take images of shape (b, c, h, w) with fixed c, h, w; it takes {dims}.")
        self.shape: tuple[int, ...] = (dims[1], dims[2], dims[3])
        outputs = {output.name: output.shape for output in self.session.get_outputs()}
        self.output = "features" if "features" in outputs else next(iter(outputs))
        if len(outputs[self.output] or "bd") != 2:  # a file need not say
            raise BootdiffError(
                f"{path} should give features of shape (b, d); its '{self.output}' is {outputs[self.output]}."
            )
        self.knows_labels = "logits" in outputs and self.output != "logits"
        self.outputs = [self.output, *(["logits"] if self.knows_labels else [])]
        self.name = f"{title or path.stem}-{file_hash(path)}"

    @classmethod
    def fashion(cls) -> OnnxFeatures:
        """The shipped classifier of Fashion-MNIST: 128 features of 1×32×32 images."""
        return cls(builtin_folder(FASHION) / "features.onnx", FASHION)

    def __call__(self, images: Tensor) -> Tensor:
        """(b, d)."""
        return self.read(images)[0]

    def read(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """(b, d), and (b, classes) where there are logits."""
        values = self.session.run(self.outputs, {self.input.name: images.float().cpu().numpy()})
        features, *logits = map(torch.from_numpy, values)
        return features, logits[0] if logits else None


def _session(path: Path) -> Any:
    if not path.is_file():
        raise BootdiffError(f"no ONNX file at {path}.")
    try:
        import onnxruntime
    except ImportError:
        raise BootdiffError("ONNX features need onnxruntime; install it with: pip install 'bootdiff[onnx]'.") from None
    try:
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own kinds for a damaged file
        raise BootdiffError(f"{path} cannot be read as an ONNX file ({first_line(error)}).") from error
