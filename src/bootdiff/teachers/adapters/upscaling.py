"""Checking that a super-resolution stage fits the base stage whose images it enlarges."""

from __future__ import annotations

from collections.abc import Sequence

from bootdiff.core.errors import BootdiffError
from bootdiff.teachers.adapters.base import Adapter


def check_enlarges(stage: Adapter, base: Adapter | None, shape: Sequence[int], name: str) -> None:
    """Refuse a base stage whose images a super-resolution stage cannot enlarge.

    Args:
        shape: the shape (c, h, w) of the base stage's images.
        name: the base stage's name, for the message.

    Raises:
        BootdiffError: if it cannot; the message names both sizes.
    """
    small, (channels, height, width) = tuple(shape), stage.shape
    whole = len(small) == 3 and height > small[1] and height % small[1] == 0 and height * small[2] == width * small[1]
    if not whole or small[0] != channels or (base is not None and base.latent):
        raise BootdiffError(
            f"{name} makes {small}, which this stage cannot enlarge to {tuple(stage.shape)}; expected images of as "
            "many channels and a whole fraction of the size."
        )
