"""The builtin digit classifier: the ``digits`` feature space, and a perceptual distance."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from bootdiff.builtin import builtin_folder


class DigitsClassifier(nn.Module):
    """Two convolutions and a 64-wide layer, whose values are the features, before the logits."""

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
        """Logits, (b, 10)."""
        return self.head(self.body(images))

    @classmethod
    def builtin(cls) -> DigitsClassifier:
        """The shipped weights, frozen."""
        from safetensors.torch import load_file

        network = cls()
        network.load_state_dict(load_file(cls.file()))
        return network.requires_grad_(False).eval()

    @staticmethod
    def file() -> Path:
        """Where the weights are."""
        return builtin_folder("digits") / "features.safetensors"
