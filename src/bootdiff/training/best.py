"""The best look's weights, kept beside a run until it ends, in case the run ends worse than it was."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from bootdiff.files import load_tensors, read_json, remove, save_tensors, write_json, write_whole
from bootdiff.training.convergence import is_better, relative_distance

#: looks below which the last state is handed over, whatever they say
FEWEST_LOOKS = 5
_LOOK, _WEIGHTS = "look.json", "student.safetensors"


@dataclass(frozen=True)
class BestLook:
    """The student as it was at its best look: averaged weights in one folder of the run, and that look's figures.

    Writing it is the cost of a look that beats all before it: one copy of the student in float32.

    Args:
        folder: ``best`` in the run's folder; it is there from the first finite look on, and stays in a finished run
            whose student is of that look.
    """

    folder: Path

    @property
    def look(self) -> Mapping[str, Any] | None:
        """The figures of the look whose weights are kept; None before the first finite one."""
        path = self.folder / _LOOK
        return read_json(path) if path.is_file() else None

    def offer(self, look: Mapping[str, Any], student: nn.Module) -> None:
        """Keep these weights if their look is finite and nearer to the teacher's samples than the one that is kept."""
        before, distance = self.look, relative_distance(look)
        if not math.isfinite(distance) or (before is not None and distance >= relative_distance(before)):
            return

        def write(temporary: Path) -> None:
            temporary.mkdir()
            save_tensors(temporary / _WEIGHTS, student.state_dict())
            write_json(temporary / _LOOK, look)

        write_whole(self.folder, write)

    def beats_last(self, looks: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the kept look is nearer than the last of at least five by more than the noise of such a figure."""
        best = self.look
        if best is None or len(looks) < FEWEST_LOOKS or best["step"] == looks[-1]["step"]:
            return False
        return is_better(best, looks[-1])

    def restore(self, student: nn.Module) -> None:
        """Put the kept weights into the student."""
        student.load_state_dict(load_tensors(self.folder / _WEIGHTS))

    def remove(self) -> None:
        """Forget them: the run has ended, or what they were compared with has changed."""
        remove(self.folder)
