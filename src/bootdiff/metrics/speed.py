"""Latency: how long one call takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from bootdiff.core.device import wait_for
from bootdiff.core.errors import BootdiffError
from bootdiff.metrics.estimate import Estimate


def latency(call: Callable[[], object], device: torch.device, warm_up: int = 3, rounds: int = 10) -> Estimate:
    """Return the milliseconds that a call takes.

    The value is the median of ``rounds`` calls, and the fastest and slowest are its interval.

    Args:
        device: the device that the call works on; a GPU is waited for before and after each call.
        warm_up: the number of calls before those that count.

    Raises:
        BootdiffError: if ``rounds`` is below one.
    """
    if rounds < 1:
        raise BootdiffError(f"a latency needs at least one round, got {rounds}.")
    for _ in range(warm_up):
        call()
    times = [_milliseconds(call, device) for _ in range(rounds)]
    words = "median milliseconds a call; fastest and slowest"
    return Estimate(statistics.median(times), rounds, words, min(times), max(times))


def _milliseconds(call: Callable[[], object], device: torch.device) -> float:
    wait_for(device)
    started = time.perf_counter()
    call()
    wait_for(device)
    return 1000 * (time.perf_counter() - started)
