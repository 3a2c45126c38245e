"""What ships with the package: teachers of the digits, their feature network, reference statistics and prompts."""

from __future__ import annotations

from pathlib import Path

BUILTIN_TEACHERS = ("digits", "digits-class", "digits-text", "digits-cascade", "digits-cascade-upscaler")
#: also the name of their data, features, reference and prompts
DIGITS = "digits"
#: the name of features and a reference of Fashion-MNIST
FASHION = "fashion"


def builtin_folder(name: str) -> Path:
    """The folder of a builtin's files."""
    return Path(__file__).parent / name
