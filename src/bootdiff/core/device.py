"""Where networks are called, outside of a training."""

from __future__ import annotations

import torch


def best_device() -> torch.device:
    """The accelerator, where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
