"""Several processes under torchrun or accelerate: who one is, what all agree on, and what is done when one is gone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from bootdiff.core.errors import BootdiffError

T = TypeVar("T")

#: one process may encode prompts for hours while the others wait; that it still lives, ``presence`` sees
PATIENCE = timedelta(days=2)
#: what the libraries below say of a process that does not answer
_LOST = re.compile(
    r"gloo|NCCL|TCPStore|connection (was )?(closed|reset)|Broken pipe|Timed out waiting|socket|remote process",
    re.IGNORECASE,
)

#: whether ``place`` has opened the group of the processes
_ours = False


class LostProcessError(BootdiffError):
    """Another process of the same command has ended, or does not answer."""


def several() -> bool:
    """Whether torchrun or accelerate started more than one."""
    return launched("WORLD_SIZE", 1) > 1


def launched(name: str, alone: int) -> int:
    """A number that the launcher has put into the environment.

    Args:
        alone: what it is without one.

    Raises:
        BootdiffError: if something else stands there.
    """
    words = os.environ.get(name, "").strip()
    if words and not (words.isdecimal() and len(words) < 10):
        raise BootdiffError(f"{name} should be a whole number, as torchrun sets it, got '{words:.40}'; unset it.")
    return int(words) if words else alone


def place() -> tuple[int, int]:
    """(number of this process, number of processes); the first call makes them known to each other."""
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
    """Whether the processes were made known to each other here, and not by a host program before."""
    return _ours or not several()


def leave() -> None:
    """Close the connections: a process that ends with them open may abort while the first one still writes."""
    import torch

    if _ours and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def gathered(value: T) -> list[T]:
    """What every process has in the place of ``value``, in their order; they wait for each other."""
    _, count = place()
    if count == 1:
        return [value]
    import torch

    values: list[Any] = [None] * count
    torch.distributed.all_gather_object(values, value)
    return values


def word_of_first(value: T) -> T:
    """What the first process has in the place of ``value``: so all do the same, whatever each sees of the disk."""
    _, count = place()
    if count == 1:
        return value
    import torch

    values: list[Any] = [value]
    torch.distributed.broadcast_object_list(values)
    return values[0]


@contextmanager
def told_when_lost() -> Iterator[None]:
    """Within it, a message that breaks off because another process is gone is an error of one line.

    Raises:
        LostProcessError: saying so.
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
