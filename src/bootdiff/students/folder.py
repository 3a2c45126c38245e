"""Telling what a folder that somebody names is: a run, an unfolded student or an exported one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bootdiff.core.errors import BootdiffError
from bootdiff.storage.runs import Run
from bootdiff.students.card import FILE, StudentCard, read_card

#: the file that tells the folder of a stock pipeline
STOCK = "model_index.json"


@dataclass(frozen=True)
class StudentFolder:
    """The folder of a student, and of which kind the student is.

    Args:
        path: the folder in which the student itself lies.
        is_export: whether it is a stock pipeline, which answers for the image's time only.
    """

    path: Path
    is_export: bool

    @classmethod
    def at(cls, name: Path | str) -> StudentFolder:
        """Return the student that a run holds, or that a folder is.

        Raises:
            BootdiffError: if the folder is neither, or its run is not finished.
        """
        folder = Path(name)
        if (folder / STOCK).exists() and not Run(folder).student.exists():
            return cls(folder, is_export=True)
        return cls.unfolded(folder)

    @classmethod
    def unfolded(cls, name: Path | str) -> StudentFolder:
        """Return the student that answers for every time: that of a run, or the folder itself if it is one.

        Raises:
            BootdiffError: if there is no such student.
        """
        folder = Path(name)
        for candidate in (folder, Run(folder).student_path):
            if (candidate / FILE).exists() and not (candidate / STOCK).exists():
                return cls(candidate, is_export=False)
        if (folder / STOCK).exists() and (folder / FILE).exists():
            raise BootdiffError(
                f"{folder} is an exported student, which answers for the image's time only; name its run instead."
            )
        if Run(folder).started:
            raise BootdiffError(f"the run in {folder} has no student yet; repeat its command to finish it.")
        raise BootdiffError(
            f"{folder} holds neither a run, an unfolded student (student-path) nor an exported student."
        )

    @property
    def card(self) -> StudentCard:
        """The student's card; an empty one for an export without a card.

        Raises:
            BootdiffError: if the card is damaged.
        """
        if self.is_export and not (self.path / FILE).exists():
            return StudentCard()
        return read_card(self.path)
