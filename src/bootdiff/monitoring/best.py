"""The weights of a run's best look, which are kept until the run ends, in case it ends worse than it was."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from bootdiff.core.errors import BootdiffError, first_line
from bootdiff.monitoring.convergence import has_learned_less, is_better, is_look, relative_distance
from bootdiff.storage.files import load_tensors, read_json, remove, save_tensors, write_json, write_whole
from bootdiff.system.out_of_memory import let_pass

T = TypeVar("T")

#: with fewer looks than this the last state becomes the student, whatever the looks say
FEWEST_LOOKS = 5
_LOOK, _WEIGHTS = "look.json", "student.safetensors"


@dataclass(frozen=True)
class BestLook:
    """The student as it was at its best look: averaged weights and that look's figures, in one folder of the run.

    A look that beats all before it costs one copy of the student, written in float32.

    Args:
        folder: ``best`` in the run's folder. It is there from the first finite look on, and stays in a finished run
            whose student is that look's.
    """

    folder: Path

    @property
    def look(self) -> Mapping[str, Any] | None:
        """Return the figures of the look whose weights are kept; None before the first finite look."""
        path = self.folder / _LOOK
        return self._read(lambda: read_json(path)) if path.is_file() else None

    def offer(self, look: Mapping[str, Any], student: nn.Module) -> None:
        """Keep these weights if their look is finite and nearer to the teacher's samples than the one kept so far.

        They are also kept where the one before has learned far less of the path.
        """
        before, distance = self.look, relative_distance(look)
        if not math.isfinite(distance):
            return
        if before is not None and distance >= relative_distance(before) and not has_learned_less(before, look):
            return

        def write(temporary: Path) -> None:
            temporary.mkdir()
            save_tensors(temporary / _WEIGHTS, student.state_dict())
            write_json(temporary / _LOOK, look)

        write_whole(self.folder, write)

    def beats_last(self, looks: Sequence[Mapping[str, Any]]) -> bool:
        """Return whether the kept look is nearer to the teacher's samples than the last look.

        It must be nearer by more than such figures differ by chance, and there must be five looks or more.
        """
        best = self.look
        if best is None or len(looks) < FEWEST_LOOKS or best["step"] == looks[-1]["step"]:
            return False
        return is_better(best, looks[-1])

    def restore(self, student: nn.Module) -> None:
        """Put the kept weights into the student.

        Raises:
            BootdiffError: if they are damaged, or belong to another student.
        """
        self._read(lambda: student.load_state_dict(load_tensors(self.folder / _WEIGHTS)))

    def check(self) -> None:
        """Refuse a damaged folder, before a training run begins whose end would need it.

        Raises:
            BootdiffError: if it is damaged; the message says what to remove.
        """
        look = self.look
        if look is not None and not is_look(look):
            raise self._damaged("its figures are no look's")
        if look is not None:
            self._read(lambda: load_tensors(self.folder / _WEIGHTS))

    def _read(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except (BootdiffError, RuntimeError) as error:
            let_pass(error)
            raise self._damaged(first_line(error)) from error

    def _damaged(self, why: str) -> BootdiffError:
        return BootdiffError(
            f"{self.folder}, the weights of the best look so far, is damaged ({why}); remove that folder: the student "
            "is then of a later look, or of the last step."
        )

    def remove(self) -> None:
        """Remove the kept weights, because the run has ended, or what they were compared with has changed."""
        remove(self.folder)
