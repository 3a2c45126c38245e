"""What a report reads of a finished run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bootdiff.core.errors import BootdiffError, first_line
from bootdiff.evaluation.table import read_evaluation
from bootdiff.storage.runs import STAGE, Run
from bootdiff.training.log import read_log

if TYPE_CHECKING:
    from bootdiff.monitoring.convergence import Verdict


@dataclass(frozen=True)
class Finished:
    """A finished distillation.

    Args:
        name: short, and no other run's on the page.
        config, meta: what was asked, and what it ran on.
        log: the training log's lines.
        looks: the convergence's; none of a run that was not watched.
        evaluation: its figures, where it was measured.
    """

    folder: Path
    name: str
    config: Mapping[str, Any]
    meta: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]]
    looks: Sequence[Mapping[str, Any]]
    evaluation: Mapping[str, Any] | None
    #: the stage before it, of a run of two
    first: Finished | None = None

    @property
    def verdict(self) -> Verdict | None:
        """Of its looks, or of its end where it has none; None where neither says anything."""
        from bootdiff.monitoring.convergence import verdict_of

        verdict = verdict_of(self.folder)
        return verdict if self.looks or verdict.word == "unstable" else None

    @property
    def teacher_key(self) -> str:
        """Equal for runs of one teacher."""
        told = self.meta.get("sources", {}).get("teacher") or self.meta.get("source_hash")
        return str(told or [self.config["teacher"], self.config.get("teacher_options")])


def open_finished(folder: Path) -> Finished:
    """Read a run.

    Raises:
        BootdiffError: if the folder holds no finished distillation.
    """
    from bootdiff.monitoring.convergence import read_watch

    run = Run(folder)
    if not folder.is_dir():
        raise BootdiffError(f"no run folder at '{folder}'; expected the --output of 'bootdiff distill'.")
    if not run.started or run.config.get("task") != "distill":
        raise BootdiffError(f"{folder} holds no distillation run; expected the --output of 'bootdiff distill'.")
    if not (folder / "student-path").exists():
        raise BootdiffError(f"the run in {folder} is not finished; repeat its command to finish it, then report.")
    evaluation = read_evaluation(folder)
    log, looks = read_log(folder / "log.jsonl"), read_watch(folder)
    first = open_finished(folder / STAGE) if (folder / STAGE / "student-path").is_dir() else None
    return Finished(folder, folder.resolve().name, run.config, run.meta, log, looks, evaluation, first)


def open_several(folders: Sequence[Path]) -> list[Finished]:
    """Read runs to be set side by side, named by the ends of their paths that tell them apart.

    Raises:
        BootdiffError: if one is no finished distillation, or named twice.
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
    """Turn what a damaged file of a run leads to into one line.

    Raises:
        BootdiffError: naming the runs and what was met.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        runs = " or ".join(map(str, folders))
        raise BootdiffError(
            f"{runs} holds a damaged file ({type(error).__name__}: {first_line(error)}); repeat the commands that made "
            "it."
        ) from error
