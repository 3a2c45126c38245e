"""Several processes under torchrun: each makes some of the batches, and all know the figures."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch

T = TypeVar("T")


def several() -> bool:
    """Whether torchrun or accelerate started more than one."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def join() -> None:
    """Know each other, and each its own device: to be called before anything is moved to one."""
    _place()
    if several():
        atexit.register(_leave)


def _leave() -> None:
    """Close the connections: a process that ends with them open may abort while the first one still writes."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def mine(items: Iterable[T]) -> Iterator[T]:
    """Every n-th item, from this process's own on."""
    index, count = _place()
    return (item for number, item in enumerate(items) if number % count == index)


def gathered(value: T) -> list[T]:
    """What every process has in the place of ``value``, in their order; they wait for each other."""
    _, count = _place()
    if count == 1:
        return [value]
    values: list[T | None] = [None] * count
    torch.distributed.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def _place() -> tuple[int, int]:
    """(number of this process, number of processes)."""
    if not several():
        return 0, 1
    from accelerate import PartialState

    state = PartialState(cpu=not torch.accelerator.is_available())
    return state.process_index, state.num_processes
