"""Evaluation by several processes under torchrun: each makes some of the batches, and all get the figures."""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Iterator
from typing import TypeVar

from bootdiff.system.processes import gathered, leave, place, several

__all__ = ["gathered", "join", "mine", "several"]

T = TypeVar("T")


def join() -> None:
    """Let the processes find each other, and give each its device, before anything is moved to one."""
    place()
    if several():
        atexit.register(leave)


def mine(items: Iterable[T]) -> Iterator[T]:
    """Yield every n-th item, beginning with this process's own, where n processes run."""
    index, count = place()
    return (item for number, item in enumerate(items) if number % count == index)
