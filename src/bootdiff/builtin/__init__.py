"""What ships with the package: teachers of the digits, their feature network, reference statistics and prompts."""

from __future__ import annotations

from pathlib import Path

from bootdiff.core.errors import BootdiffError

BUILTIN_TEACHERS = ("digits", "digits-class", "digits-text", "digits-cascade", "digits-cascade-upscaler")
#: the name of the digits' data set, features, reference and prompts, and of one of their teachers
DIGITS = "digits"
#: the name of the features and the reference of Fashion-MNIST
FASHION = "fashion"


def builtin_folder(name: str) -> Path:
    """Return the folder with the files of the builtin ``name``."""
    return Path(__file__).parent / name


def check_output_name(output: Path | str) -> None:
    """Check that a new folder does not hide a builtin, because a folder is found before a builtin of the same name.

    Raises:
        BootdiffError: if it has the name of a builtin.
    """
    if str(output) in (*BUILTIN_TEACHERS, FASHION):
        raise BootdiffError(
            f"--output {output} would hide the builtin {output}; choose another, such as runs/{output}."
        )
