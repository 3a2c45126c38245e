"""How ``builtin/fashion/samples.npz`` was made: features of some training images, for KID, precision and recall.

python recipes/fashion_samples.py path/to/train-images-idx3-ubyte.gz
"""

from __future__ import annotations

import sys

import numpy as np

from bootdiff.builtin import FASHION, builtin_folder
from bootdiff.evaluation.references import find_reference
from bootdiff.metrics.features import load_features

NUM = 5000


def main(images: str) -> None:
    """The first rows of the 10,000 that a reference draws with a fixed seed, in half precision."""
    reference = find_reference(images, load_features(FASHION, (1, 32, 32)))
    if reference.samples is None:
        raise SystemExit(f"{images} gave no samples.")
    np.savez_compressed(builtin_folder(FASHION) / "samples.npz", samples=reference.samples[:NUM].half().numpy())


if __name__ == "__main__":
    main(*sys.argv[1:])
