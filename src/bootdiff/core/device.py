"""The device on which networks are called outside of a training."""

from __future__ import annotations

import torch


def best_device() -> torch.device:
    """Return the CUDA device where there is one, and the CPU otherwise."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
