"""Feature spaces that an ONNX file computes, such as the builtin ``fashion``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bootdiff.builtin import FASHION, builtin_folder
from bootdiff.core.errors import BootdiffError, first_line
from bootdiff.storage.files import file_hash
from bootdiff.storage.reading import check_regular
from bootdiff.system.out_of_memory import let_pass


class OnnxFeatures:
    """A feature space from any ONNX file that takes images as its one input.

    Its features are the output called ``features``, or else the first output. A further output called ``logits`` makes
    it a classifier.

    Args:
        title: the readable part of the space's name; by default the file's name.

    Raises:
        BootdiffError: if the file is missing, cannot be read, does not take images of one fixed size, or has weights
            that are not finite.
    """

    def __init__(self, path: Path, title: str | None = None) -> None:
        self.session = _session(path)
        self.input, *others = self.session.get_inputs()
        dims = self.input.shape
        if others or self.input.type != "tensor(float)":
            raise BootdiffError(
                f"{path} should take one input, images in float32; it takes "
                f"{', '.join(f'{one.name} ({one.type})' for one in (self.input, *others))}."
            )
        if len(dims) != 4 or not all(isinstance(d, int) for d in dims[1:]):
            raise BootdiffError(f"{path} should take images of shape (b, c, h, w) with fixed c, h, w; it takes {dims}.")
        self.shape: tuple[int, ...] = (dims[1], dims[2], dims[3])
        self.batch = dims[0] if isinstance(dims[0], int) else None
        outputs = {output.name: output.shape for output in self.session.get_outputs()}
        self.output = "features" if "features" in outputs else next(iter(outputs))
        if len(outputs[self.output] or "bd") != 2:  # a file need not say
            raise BootdiffError(
                f"{path} should give features of shape (b, d); its '{self.output}' is {outputs[self.output]}."
            )
        self.knows_labels = "logits" in outputs and self.output != "logits"
        self.outputs = [self.output, *(["logits"] if self.knows_labels else [])]
        self.name = f"{title or path.stem}-{file_hash(path)}"
        self._check_finite(path)

    @classmethod
    def fashion(cls) -> OnnxFeatures:
        """Return the builtin classifier of Fashion-MNIST: 128 features of 1×32×32 images."""
        return cls(builtin_folder(FASHION) / "features.onnx", FASHION)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of images (b, c, h, w), (b, d)."""
        return self.read(images)[0]

    def read(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return features (b, d), and logits (b, classes) where the file gives them; otherwise None."""
        parts = [self._run(part) for part in images.float().cpu().split(self.batch or len(images))]
        features, *logits = (torch.cat(values) for values in zip(*parts, strict=True))
        return features, logits[0] if logits else None

    def _check_finite(self, path: Path) -> None:
        """Refuse weights that are not finite, by what they make of one grey image."""
        if not all(bool(torch.isfinite(part).all()) for part in self._run(torch.zeros(1, *self.shape))):
            raise BootdiffError(
                f"{path} gives values that are not finite for a grey image; the file is damaged, so fetch or export it "
                "again."
            )

    def _run(self, images: Tensor) -> list[Tensor]:
        """Return the outputs for these images.

        Where the file fixes their number, black images fill the batch, and their outputs are dropped.
        """
        missing = self.batch - len(images) if self.batch else 0
        full = torch.cat([images, images.new_zeros(missing, *images.shape[1:])]) if missing else images
        try:
            values = self.session.run(self.outputs, {self.input.name: full.numpy()})
        except Exception as error:  # onnxruntime raises its own kinds
            let_pass(error)
            raise BootdiffError(f"{self.name} cannot be asked for features ({first_line(error)}).") from error
        return [torch.from_numpy(value)[: len(images)] for value in values]


def _session(path: Path) -> Any:
    check_regular(path, "ONNX file")
    try:
        import onnxruntime
    except ImportError:
        raise BootdiffError("ONNX features need onnxruntime; install it with: pip install 'bootdiff[onnx]'.") from None
    _check_data(path)
    try:
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own kinds for a damaged file
        let_pass(error)
        raise BootdiffError(
            f"{path} cannot be read as an ONNX file ({first_line(error)}); fetch or export it again."
        ) from error


def _check_data(path: Path) -> None:
    """Refuse an ONNX file that keeps weights outside its folder, which not every version of onnxruntime does.

    Such a place is stored as protobuf's entry of the word "location" (field 1) and a text (field 2) with its length.
    """
    for entry in re.finditer(rb"\n\x08location\x12([\x80-\xff]?[\x00-\x7f])", path.read_bytes()):
        low, *high = entry[1]
        length = (low & 0x7F) | (high[0] << 7 if high else 0)
        named = Path(entry.string[entry.end() : entry.end() + length].decode("utf-8", "replace"))
        if named.is_absolute() or ".." in named.parts:
            raise BootdiffError(f"{path} keeps weights in {str(named)!r:.80}; expected a file in its own folder.")
