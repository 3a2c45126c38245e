"""Moving tensors and modules from the processor's memory to a GPU's without waiting."""

from __future__ import annotations

import threading
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)

_MOVING = threading.Lock()


def to_device(value: Tensor, device: torch.device | str) -> Tensor:
    """Return ``value`` on ``device``; a copy from the CPU to CUDA goes by pinned memory, so nobody waits for it.

    A copy from ordinary memory makes the processor wait until everything that was queued before it is done.
    """
    if value.device.type == "cpu" and torch.device(device).type == "cuda":
        # Pinning writes every element, which an expanded tensor does not have.
        return value.contiguous().pin_memory().to(device, non_blocking=True)
    return value.to(device)


def settled(module: Module, device: torch.device) -> Module:
    """Return ``module`` on ``device``; its weights move once, not at every call, and one thread moves them."""
    if not _lies_on(module, device):
        with _MOVING:
            if not _lies_on(module, device):
                module.to(device)
    return module


def _lies_on(module: nn.Module, device: torch.device) -> bool:
    return all(value.device == device for value in chain(module.parameters(), module.buffers()))
