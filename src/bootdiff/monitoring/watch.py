"""Looking at a student while it learns, without an image: the same noises, the student's answers, the teacher's path.

Costs about two in a hundred of the run's network passes: the teacher solves its path from a few noises once, and every
look is one call of the student on each, and one of the teacher on what it made.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bootdiff.data.conditions import Conditions
from bootdiff.monitoring.best import BestLook
from bootdiff.monitoring.convergence import FILE, Verdict, is_look, judge, read_watch, relative_distance
from bootdiff.monitoring.look import figures_of
from bootdiff.monitoring.noises import Noises
from bootdiff.monitoring.path_ends import PathEnds
from bootdiff.monitoring.teacher_features import TeacherFeatures
from bootdiff.monitoring.teacher_path import OVERFLOW, TeacherPath
from bootdiff.monitoring.watch_plan import FEWEST_LOOKS, WatchPlan
from bootdiff.students import Student
from bootdiff.teachers import Teacher
from bootdiff.training.log import append_line, truncate_log

#: the weights of the best look so far
FOLDER_OF_THE_BEST = "best"


@dataclass
class Watch:
    """The student's answers to fixed noises, beside the ends of the teacher's path.

    Args:
        teacher: the objective's, with guidance and limited as its targets are.
        conditions: of the samples.
        t_range: (t_min, t_max) of the path.
        folder: the run; ``watch.jsonl`` and the stored solutions are written there.
        last_step: the run's last one; it is always looked at.
        stops: whether a converged run is to end.
        warmup: steps before which nothing is said of the convergence.
        keeps_best: whether the weights of the best look so far are kept beside the run.
    """

    teacher: Teacher
    conditions: Conditions
    t_range: tuple[float, float]
    folder: Path
    plan: WatchPlan
    last_step: int
    stops: bool = False
    warmup: int = 0
    keeps_best: bool = False
    seconds: float = field(default=0.0, init=False)
    _truth: PathEnds | None = field(default=None, init=False)

    def due(self, step: int) -> bool:
        """Whether the student is to be looked at after ``step`` steps."""
        return step % self.plan.every == 0 or step == self.last_step

    def begin(self, step: int) -> None:
        """Forget the looks after ``step``, which will be made again; all of them, where their references are gone.

        The best look's weights stay even if they are of a later step: they are this run's, and nothing else holds them.
        """
        comparable, looks = self._path.stored() is not None, self._looks
        if not comparable:
            self.best.remove()
        finite = any(math.isfinite(relative_distance(look)) for look in looks)
        # A run that ended with its last state keeps no best look; its results may be made again all the same.
        lacks_best = self.keeps_best and self.best.look is None and step < self.last_step
        if finite and (not comparable or lacks_best):
            what = "the weights of its best look so far" if comparable else "its looks so far"
            print(f"bootdiff: note: {self.folder} has lost {what}; it goes on with those from here.", file=sys.stderr)
        self.best.check()
        truncate_log(self.folder / FILE, step if comparable else -1)

    @torch.no_grad()
    def look(self, step: int, networks: Mapping[str, nn.Module]) -> None:
        """Write one line of figures, after the weights where they are the best so far."""
        started = time.monotonic()
        student = networks["student"]
        if not isinstance(student, Student):
            raise TypeError(f"expected a Student, got {type(student).__name__}")
        truth = self.truth(next(student.parameters()).device)
        line = {"step": step, **figures_of(student, truth, self.noises, self.t_range[1], self._features)}
        if self._features is not None and truth.by_values:
            line["note"] = OVERFLOW
        if self.keeps_best:
            self.best.offer(line, student)
        self.seconds += time.monotonic() - started
        append_line(self.folder / FILE, {**line, "seconds": round(self.seconds, 3)})

    @property
    def _looks(self) -> list[dict[str, Any]]:
        """The looks so far, without the lines of a damaged file that are none."""
        return [look for look in read_watch(self.folder) if is_look(look)]

    @property
    def best(self) -> BestLook:
        """Where the weights of the best look are kept."""
        return BestLook(self.folder / FOLDER_OF_THE_BEST)

    @property
    def best_step(self) -> int | None:
        """The step of the kept look, where it beats the last one by more than noise; else None."""
        if not self.keeps_best or (best := self.best.look) is None:
            return None
        return int(best["step"]) if self.best.beats_last(self._looks) else None

    @property
    def verdict(self) -> Verdict:
        """Of the looks so far."""
        return judge(self._looks)

    @property
    def enough(self) -> bool:
        """Whether the run may end before its last step: not before it was looked at often enough to be sure."""
        looks = [look for look in self._looks if look["step"] > self.warmup] if self.stops else []
        return len(looks) >= FEWEST_LOOKS and judge(looks).word == "converged"

    @cached_property
    def _features(self) -> TeacherFeatures | None:
        return TeacherFeatures.of(self.teacher, self.t_range[0])

    @cached_property
    def noises(self) -> Noises:
        """That every look starts from."""
        return Noises(self.teacher.shape, self.conditions, self.plan.count)

    @cached_property
    def _path(self) -> TeacherPath:
        return TeacherPath(self.teacher, self.noises, self.t_range, self._features, self.folder)

    def truth(self, device: torch.device) -> PathEnds:
        """The ends of the path: known, from the run's folder, or solved now."""
        self._truth = self._truth or self._path.stored() or self._path.solve(device)
        return self._truth
