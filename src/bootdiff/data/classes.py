"""Class labels, as text says them."""

from __future__ import annotations

from bootdiff.core.errors import BootdiffError, shown

#: beyond every label
LARGEST_LABEL = 2**31


def read_classes(words: str | None) -> list[int] | None:
    """Comma-separated class labels.

    Raises:
        BootdiffError: if one is no whole number.
    """
    if words is None:
        return None
    try:
        labels = [int(word) for word in words.split(",")]
    except ValueError:
        labels = [-1]
    if not all(0 <= label < LARGEST_LABEL for label in labels):
        raise BootdiffError(f"--classes expects whole numbers such as 0,3,7, got {shown(words)}.")
    return labels
