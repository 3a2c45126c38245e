"""Feature spaces: what a Fréchet distance is measured in. Figures of different spaces cannot be compared."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from bootdiff.builtin import builtin_folder
from bootdiff.errors import BootdiffError, nearest


class Features(Protocol):
    """Maps images (b, c, h, w) in [−1, 1] to feature vectors (b, d)."""

    #: name and content hash, kept beside every figure
    name: str
    #: (channels, height, width) of the images it takes
    shape: tuple[int, int, int]

    def __call__(self, images: Tensor) -> Tensor: ...


class DigitsClassifier(nn.Module):
    """The network behind the ``digits`` features: two convolutions and a 64-wide layer, read before its last one."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * 16, 64),
            nn.ReLU(),
        )
        self.head = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (b, 10)."""
        return self.head(self.body(images))


class DigitsFeatures:
    """The 64 features of the shipped, frozen digit classifier."""

    shape = (1, 8, 8)

    def __init__(self) -> None:
        from safetensors.torch import load_file

        path = builtin_folder("digits") / "features.safetensors"
        self.network = DigitsClassifier().requires_grad_(False).eval()
        self.network.load_state_dict(load_file(path))
        self.name = f"digits-{_file_hash(path)}"

    def __call__(self, images: Tensor) -> Tensor:
        """(b, 64)."""
        return self.network.to(images.device).body(images)


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


def load_features(name: str) -> Features:
    """A feature space: ``digits``, or the path of an ONNX file.

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
    raise BootdiffError(
        f"there is no feature space '{name}'; expected 'digits' or an .onnx file.{nearest(name, ['digits'])}"
    )


def _file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]
