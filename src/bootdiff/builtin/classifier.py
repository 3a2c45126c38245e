"""The builtin digit classifier: the ``digits`` feature space, and a perceptual distance."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from bootdiff.builtin import builtin_folder


class DigitsClassifier(nn.Module):
    """A network of two convolutions and a layer of 64 values, which are the features, before the ten logits."""

    #: (channels, height, width) of the images it takes
    shape = (1, 8, 8)

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
        """Return the logits (b, 10) of images (b, 1, 8, 8)."""
        return self.head(self.body(images))

    @classmethod
    def builtin(cls) -> DigitsClassifier:
        """Return the classifier with the weights that ship with the package, frozen."""
        from safetensors.torch import load_file

        network = cls()
        network.load_state_dict(load_file(cls.file()))
        return network.requires_grad_(False).eval()

    @staticmethod
    def file() -> Path:
        """Return the path of the file with the weights."""
        return builtin_folder("digits") / "features.safetensors"
