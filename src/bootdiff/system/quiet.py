"""Other libraries' progress bars and remarks, kept from the user's terminal; their errors still come through."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

#: how many ``quietly`` blocks are open in all threads: the first switches the remarks off, the last on again
_inside = 0
_loud = ExitStack()
_lock = threading.Lock()


@contextmanager
def quietly() -> Iterator[None]:
    """Silence the libraries within the ``with`` block, while pipelines are loaded, saved or asked.

    What matters to the user, bootdiff says itself, in one line.
    """
    global _inside
    with _lock:
        if _inside == 0:
            _loud.enter_context(_silence())
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _loud.close()


@contextmanager
def _silence() -> Iterator[None]:
    from diffusers.utils import logging as diffusers_log
    from transformers.utils import logging as transformers_log

    logs = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    levels = [log.level for log in logs]
    bars = [log for log in (diffusers_log, transformers_log) if log.is_progress_bar_enabled()]
    for log in logs:
        log.setLevel(logging.CRITICAL)
    for bar in bars:
        bar.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
        for bar in bars:
            bar.enable_progress_bar()
