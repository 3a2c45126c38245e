"""From the processor's memory to a GPU's without waiting."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(value: Tensor, device: torch.device | str) -> Tensor:
    """``value`` on ``device``; from the CPU to CUDA by way of pinned memory, so that nobody waits for the copy.

    A copy from ordinary memory makes the processor wait until everything that was queued before it is done.
    """
    if value.device.type == "cpu" and torch.device(device).type == "cuda":
        return value.pin_memory().to(device, non_blocking=True)
    return value.to(device)
