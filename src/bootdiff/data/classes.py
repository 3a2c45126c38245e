"""Reading class labels from an option's text."""

from __future__ import annotations

from bootdiff.core.errors import BootdiffError, shown

#: a number that is larger than every label
LARGEST_LABEL = 2**31


def read_classes(words: str | None, option: str = "--classes") -> list[int] | None:
    """Return the class labels in a comma-separated text such as ``0,3,7``; None for None.

    Args:
        option: the option that held the text, for the message.

    Raises:
        BootdiffError: if one of them is no whole number from 0, or is too large.
    """
    if words is None:
        return None
    try:
        labels = [int(word) for word in words.split(",")]
    except ValueError:
        labels = [-1]
    if not all(0 <= label < LARGEST_LABEL for label in labels):
        raise BootdiffError(f"{option} expects whole numbers such as 0,3,7, got {shown(words)}.")
    return labels
