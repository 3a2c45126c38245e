"""Several processes under torchrun: each makes some of the batches, and all know the figures."""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Iterator
from typing import TypeVar

from bootdiff.system.processes import gathered, leave, place, several

__all__ = ["gathered", "join", "mine", "several"]

T = TypeVar("T")


def join() -> None:
    """Know each other, and each its own device: to be called before anything is moved to one."""
    place()
    if several():
        atexit.register(leave)


def mine(items: Iterable[T]) -> Iterator[T]:
    """Every n-th item, from this process's own on."""
    index, count = place()
    return (item for number, item in enumerate(items) if number % count == index)
