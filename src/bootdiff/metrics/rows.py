"""Checks of feature tensors, which hold a row for each sample."""

from __future__ import annotations

import torch
from torch import Tensor

from bootdiff.core.device import in_float64
from bootdiff.core.errors import BootdiffError


def as_rows(values: Tensor, what: str = "features") -> Tensor:
    """Return values (n, d) in float64, on their own device (on the CPU for MPS), after checking that they are finite.

    Args:
        what: what the values are, for the message.

    Raises:
        BootdiffError: if the values do not have two axes, or are not finite.
    """
    if values.ndim != 2:
        raise BootdiffError(f"expected {what} of shape (samples, d), got {tuple(values.shape)}; flatten them.")
    values = in_float64(values.detach())
    bad = int((~torch.isfinite(values)).any(1).sum())
    if bad:
        raise BootdiffError(f"the {what} of {bad} of {len(values)} samples are not finite; look at the samples.")
    return values


def check_width(ours: int, theirs: int, what: str = "the reference") -> None:
    """Refuse features of two different spaces.

    Args:
        what: what has ``theirs`` features, for the message.

    Raises:
        BootdiffError: if the numbers of features differ.
    """
    if ours != theirs:
        raise BootdiffError(
            f"the samples have {ours} features and {what} {theirs}; they were made with different feature spaces, so "
            "make the reference anew."
        )
