"""What ships with the package: teachers of the digits, their feature network, reference statistics and prompts."""

from __future__ import annotations

from pathlib import Path

BUILTIN_TEACHERS = ("digits", "digits-class", "digits-text", "digits-cascade", "digits-cascade-upscaler")
#: the name of the digits' data set, features, reference and prompts, and of one of their teachers
DIGITS = "digits"
#: the name of the features and the reference of Fashion-MNIST
FASHION = "fashion"


def builtin_folder(name: str) -> Path:
    """Return the folder with the files of the builtin ``name``."""
    return Path(__file__).parent / name
