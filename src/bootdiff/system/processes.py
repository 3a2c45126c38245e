"""Several processes under torchrun or accelerate: which one this is, what all agree on, and what if one is gone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from bootdiff.core.errors import BootdiffError

T = TypeVar("T")

#: how long processes wait for each other: one may encode prompts for hours, and ``presence`` sees whether it lives
PATIENCE = timedelta(days=2)
#: matches what gloo, NCCL and torch say of a process that does not answer
_LOST = re.compile(
    r"gloo|NCCL|TCPStore|connection (was )?(closed|reset)|Broken pipe|Timed out waiting|socket|remote process",
    re.IGNORECASE,
)

#: whether ``place`` has opened the group of processes in this program
_ours = False


class LostProcessError(BootdiffError):
    """Another process of the same command has ended, or does not answer."""


def several() -> bool:
    """Return whether torchrun or accelerate started more than one process."""
    return launched("WORLD_SIZE", 1) > 1


def launched(name: str, alone: int) -> int:
    """Return a number that the launcher has put into the environment.

    Args:
        alone: the number to return where no launcher has set one.

    Raises:
        BootdiffError: if the environment holds something else than a whole number.
    """
    words = os.environ.get(name, "").strip()
    if words and not (words.isdecimal() and len(words) < 10):
        raise BootdiffError(f"{name} should be a whole number, as torchrun sets it, got '{words:.40}'; unset it.")
    return int(words) if words else alone


def place() -> tuple[int, int]:
    """Return (number of this process, number of processes); the first call makes them known to each other."""
    if not several():
        return 0, 1
    import torch
    from accelerate import PartialState

    global _ours
    was_open = torch.distributed.is_initialized()
    # Without an accelerator, accelerate takes each of torchrun's processes for a run of its own unless told "cpu".
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)
    _ours = _ours or (not was_open and torch.distributed.is_initialized())
    return state.process_index, state.num_processes


def group_is_ours() -> bool:
    """Return whether the processes were made known to each other here, and not by a host program before."""
    return _ours or not several()


def leave() -> None:
    """Close the connections to the other processes.

    A process that ends with open connections may abort while the first one still writes.
    """
    import torch

    if _ours and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def gathered(value: T) -> list[T]:
    """Return every process's ``value``, in the processes' order; all of them wait for each other."""
    _, count = place()
    if count == 1:
        return [value]
    import torch

    values: list[Any] = [None] * count
    torch.distributed.all_gather_object(values, value)
    return values


def word_of_first(value: T) -> T:
    """Return the first process's ``value`` in every process: so all do the same, whatever each sees of the disk."""
    _, count = place()
    if count == 1:
        return value
    import torch

    values: list[Any] = [value]
    torch.distributed.broadcast_object_list(values)
    return values[0]


@contextmanager
def told_when_lost() -> Iterator[None]:
    """Turn the loss of another process within the ``with`` block into an error of one line.

    Raises:
        LostProcessError: if a message breaks off because another process is gone.
    """
    try:
        yield
    except RuntimeError as error:
        if not several() or _LOST.search(str(error)) is None:
            raise
        raise LostProcessError(
            f"process {os.environ.get('RANK', '0')} of {os.environ.get('WORLD_SIZE')} ends because another one has "
            "ended or does not answer; run the same command again to go on from what is saved."
        ) from error
