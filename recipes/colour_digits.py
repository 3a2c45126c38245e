"""Coloured digits as PNG files: those of scikit-learn, each twice in a random colour on a random dark ground.

python recipes/colour_digits.py FOLDER
"""

from __future__ import annotations

import colorsys
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

#: how often each digit is there, in other colours
TIMES = 2


def main(folder: Path) -> None:
    """Write the pictures, the same ones every time."""
    draw = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(np.repeat(load_digits().images / 16, TIMES, axis=0)):
        ink, ground = (np.array(colorsys.hsv_to_rgb(draw.random(), 0.9, value)) for value in (1.0, 0.25))
        values = ground + image[..., None] * (ink - ground)
        Image.fromarray(np.round(255 * values).astype(np.uint8)).save(folder / f"{number:04d}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
