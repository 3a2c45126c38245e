"""How much memory a process has held at most."""

from __future__ import annotations

import sys
from pathlib import Path

import torch


def peak_memory() -> int | None:
    """Return the bytes that this process has held at most so far.

    On a GPU they are its own, of tensors; else they are those of the whole process. None where the system does not say.
    """
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    try:  # on Linux, where what getrusage says begins with the memory of the process that started this one
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration, ValueError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most) if sys.platform == "darwin" else int(most) * 1024
