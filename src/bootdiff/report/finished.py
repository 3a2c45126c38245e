"""What a report reads of a finished run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bootdiff.core.errors import BootdiffError, first_line
from bootdiff.evaluation.table import read_evaluation
from bootdiff.storage.runs import Run
from bootdiff.training.log import read_log

if TYPE_CHECKING:
    from bootdiff.monitoring.convergence import Verdict


@dataclass(frozen=True)
class Finished:
    """A finished distillation, as a report reads it.

    Args:
        name: a short name, which no other run on the page has.
        config, meta: what was asked, and what the run ran on.
        log: the lines of the training log.
        looks: the looks at the convergence; none of a run that was not watched.
        evaluation: the run's figures, if it was measured.
    """

    folder: Path
    name: str
    config: Mapping[str, Any]
    meta: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]]
    looks: Sequence[Mapping[str, Any]]
    evaluation: Mapping[str, Any] | None
    #: the stages before the last one, in order
    earlier: Sequence[Finished] = ()

    @property
    def verdict(self) -> Verdict | None:
        """Return the verdict on the run's looks, or on how it ended; None if neither says anything."""
        from bootdiff.monitoring.convergence import verdict_of

        verdict = verdict_of(self.folder)
        return verdict if self.looks or verdict.word == "unstable" else None

    @property
    def teacher_key(self) -> str:
        """Return words that are equal for runs of one teacher."""
        told = self.meta.get("sources", {}).get("teacher") or self.meta.get("source_hash")
        return str(told or [self.config["teacher"], self.config.get("teacher_options")])


def open_finished(folder: Path) -> Finished:
    """Read a finished run.

    Raises:
        BootdiffError: if the folder holds no finished distillation.
    """
    from bootdiff.monitoring.convergence import read_watch

    run = Run(folder)
    if not folder.is_dir():
        raise BootdiffError(f"no run folder at '{folder}'; expected the --output of 'bootdiff distill'.")
    if not run.started or run.config.get("task") != "distill":
        raise BootdiffError(f"{folder} holds no distillation run; expected the --output of 'bootdiff distill'.")
    if not run.student_path.exists():
        raise BootdiffError(f"the run in {folder} is not finished; repeat its command to finish it, then report.")
    evaluation = read_evaluation(folder)
    log, looks = read_log(folder / "log.jsonl"), read_watch(folder)
    earlier = [open_finished(stage.folder) for stage in run.earlier if stage.student_path.is_dir()]
    return Finished(folder, folder.resolve().name, run.config, run.meta, log, looks, evaluation, earlier)


def open_several(folders: Sequence[Path]) -> list[Finished]:
    """Read runs that are to be shown side by side.

    Their names are the ends of their paths, as long as is needed to tell them apart.

    Raises:
        BootdiffError: if one is no finished distillation, or is named twice.
    """
    runs = [open_finished(folder) for folder in folders]
    places = [run.folder.resolve() for run in runs]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise BootdiffError(f"{folders[number]} is named twice; name each run once.")
    parts = 1
    while len({_tail(place, parts) for place in places}) < len(places):
        parts += 1
    return [replace(run, name=_tail(place, parts)) for run, place in zip(runs, places, strict=True)]


def _tail(place: Path, parts: int) -> str:
    return "/".join(place.parts[-parts:])


@contextmanager
def told_if_damaged(folders: Sequence[Path]) -> Iterator[None]:
    """Turn the errors to which a damaged file of a run leads into one line.

    Raises:
        BootdiffError: if such an error occurs; the message names the runs and the error.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        runs = " or ".join(map(str, folders))
        raise BootdiffError(
            f"{runs} holds a damaged file ({type(error).__name__}: {first_line(error)}); repeat the commands that made "
            "it."
        ) from error
