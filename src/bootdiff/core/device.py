"""The device on which networks are called outside of a training."""

from __future__ import annotations

import torch

from bootdiff.core.errors import BootdiffError, shown

_asked: torch.device | None = None


def use_device(name: str | None) -> None:
    """Choose the device of sampling and measuring for this process; a training keeps what accelerate chooses.

    Args:
        name: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``; None for the best one that there is.

    Raises:
        BootdiffError: if the word is none of these, or this machine has no such device.
    """
    global _asked
    _asked = None if name is None else _device(name)


def best_device() -> torch.device:
    """Return the device that was asked for; if none was, CUDA's, else Apple's MPS, else the CPU."""
    if _asked is not None:
        return _asked
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def device_of(module: torch.nn.Module) -> torch.device:
    """Return where a network's parameters or buffers are; the CPU for a network that has none."""
    return next((v.device for v in (*module.parameters(), *module.buffers())), torch.device("cpu"))


def in_float64(values: torch.Tensor) -> torch.Tensor:
    """Return values in float64: on their own device, or on the CPU where that is Apple's, which has no float64."""
    return values.cpu().double() if values.device.type == "mps" else values.double()


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done its work; return at once for a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _device(name: str) -> torch.device:
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not (kind == "cuda" and number.isdecimal())):
        raise BootdiffError(f"--device expects cpu, cuda, cuda:1 or mps, got {shown(name)}.")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) >= count:
            here = f"it has {count}, from cuda:0 on" if count else "torch sees no CUDA GPU"
            raise BootdiffError(f"--device {name}: this machine has no such device ({here}); leave --device out.")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise BootdiffError("--device mps: this machine has no such device (torch sees no MPS); leave --device out.")
    return torch.device(name)
