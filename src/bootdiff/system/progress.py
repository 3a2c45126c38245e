"""Progress of long work: a bar on a terminal; elsewhere a plain line about every ten seconds."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

PLAIN_SECONDS = 10.0
#: the bars that are open now, the innermost one last: a terminal shows one bar at a time
_OPEN: list[Progress] = []


class Progress:
    """A counter of steps whose number is known; its attribute ``text`` is shown beside the count."""

    text = ""

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        from rich.console import Console

        self.what, self.total, self.done, self.first = what, total, done, done
        self.console = Console(stderr=True)
        self.started = self.printed = self.paused = time.monotonic()
        self.bar = self._bar() if self.console.is_terminal else None

    def advance(self, steps: int = 1) -> None:
        """Count ``steps`` more, and show the new count where that is due."""
        self.done += steps
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, text=f"{self._rate():.3g}/s {self.text}")
        elif time.monotonic() - self.printed > PLAIN_SECONDS or self.done == self.total:
            self.printed = time.monotonic()
            words = [f"{self.done}/{self.total}", *self._speed(), *([self.text] if self.text else [])]
            print(f"{self.what}: {', '.join(words)}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Remove the bar from the terminal."""
        if self.bar is not None:
            self.bar.stop()

    def pause(self, paused: bool) -> None:
        """Leave the terminal to another bar, or show this one again; the time between is not this one's."""
        if paused:
            self.paused = time.monotonic()
        else:
            self.started += time.monotonic() - self.paused
        if self.bar is not None:
            (self.bar.stop if paused else self.bar.start)()

    def _rate(self) -> float:
        return (self.done - self.first) / max(1e-9, time.monotonic() - self.started)

    def _speed(self) -> list[str]:
        if self.done == self.first:  # nothing is known of it yet
            return []
        left = (self.total - self.done) / self._rate()
        return [f"{self._rate():.3g}/s", f"{int(left // 60)}:{int(left % 60):02d} left"]

    def _bar(self):
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self.task = bar.add_task(self.what, total=self.total, completed=self.done, text="")
        bar.start()
        return bar


@contextmanager
def progress(what: str, total: int, done: int = 0, show: bool = True) -> Iterator[Progress]:
    """Yield a ``Progress`` that is closed whatever happens; with ``show=False`` it shows nothing."""
    around = _OPEN[-1] if show and _OPEN else None
    if around is not None:
        around.pause(True)
    counter = Progress(what, total, done) if show else _Silent()
    if show:
        _OPEN.append(counter)
    try:
        yield counter
    finally:
        counter.close()
        if show:
            _OPEN.remove(counter)
        if around is not None:
            around.pause(False)


class _Silent(Progress):
    """A counter that counts and shows nothing."""

    def __init__(self) -> None:
        self.done = 0

    def advance(self, steps: int = 1) -> None:
        """Count ``steps`` more, and show nothing."""
        self.done += steps

    def close(self) -> None:
        """Do nothing, because there is no bar to remove."""

    def pause(self, paused: bool) -> None:
        """Do nothing, because nothing is shown."""


def is_first_process() -> bool:
    """Return whether this process speaks for all, also when training is over and the group of processes is closed."""
    return os.environ.get("RANK", "").strip() in ("", "0")
