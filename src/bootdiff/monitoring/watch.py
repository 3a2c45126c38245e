"""Looks at a student while it learns: from fixed noises, its answers are compared with the teacher's path.

No image is needed. Looks cost about two in a hundred of the run's network passes: the teacher solves its path from a
few noises once, and every look takes one call of the student on each noise, and one of the teacher on what that made.
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

from bootdiff.core.transfer import settled
from bootdiff.data.conditions import Conditions
from bootdiff.monitoring.best import BestLook
from bootdiff.monitoring.convergence import FILE, Verdict, is_look, judge, read_watch, relative_distance
from bootdiff.monitoring.look import figures_of
from bootdiff.monitoring.noises import Noises
from bootdiff.monitoring.path_ends import PathEnds
from bootdiff.monitoring.teacher_path import OVERFLOW, TeacherPath
from bootdiff.monitoring.watch_plan import FEWEST_LOOKS, WatchPlan
from bootdiff.students import Student
from bootdiff.teachers import Teacher
from bootdiff.teachers.features import TeacherFeatures
from bootdiff.training.log import append_line, truncate_log

#: the folder in a run's folder that holds the weights of the best look so far
FOLDER_OF_THE_BEST = "best"


@dataclass
class Watch:
    """Watches a run: compares the student's answers to fixed noises with the ends of the teacher's path.

    Args:
        teacher: the objective's teacher, with guidance, and limited as its targets are.
        conditions: the conditions of the samples.
        t_range: (t_min, t_max) of the path.
        folder: the run's folder; ``watch.jsonl`` and the stored solutions are written there.
        last_step: the run's last step, after which the student is always looked at.
        stops: whether a run ends when it has converged.
        warmup: the number of first steps whose looks do not count for convergence.
        keeps_best: whether the weights of the best look so far are kept in the run's folder.
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
        """Return whether the student is to be looked at after ``step`` steps."""
        return step % self.plan.every == 0 or step == self.last_step

    def begin(self, step: int) -> None:
        """Forget the looks after ``step``, which will be made again; all of them, if the stored path has gone.

        The best look's weights stay even if they are of a later step: they are this run's, and no other copy exists.
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
        """Write one line of figures; before it, the weights are saved if they are the best so far."""
        started = time.monotonic()
        student = networks["student"]
        if not isinstance(student, Student):
            raise TypeError(f"expected a Student, got {type(student).__name__}")
        device = next(student.parameters()).device
        settled(self.teacher, device)  # in a later round nobody else moves it
        truth = self.truth(device)
        line = {"step": step, **figures_of(student, truth, self.noises, self._features)}
        if self._features is not None and truth.by_values:
            line["note"] = OVERFLOW
        if self.keeps_best:
            self.best.offer(line, student)
        self.seconds += time.monotonic() - started
        append_line(self.folder / FILE, {**line, "seconds": round(self.seconds, 3)})

    @property
    def _looks(self) -> list[dict[str, Any]]:
        """Return the looks so far, without damaged lines of the file."""
        return [look for look in read_watch(self.folder) if is_look(look)]

    @property
    def best(self) -> BestLook:
        """Return the place where the weights of the best look are kept."""
        return BestLook(self.folder / FOLDER_OF_THE_BEST)

    @property
    def best_step(self) -> int | None:
        """Return the step of the kept look, if it beats the last one by more than noise; otherwise None."""
        if not self.keeps_best or (best := self.best.look) is None:
            return None
        return int(best["step"]) if self.best.beats_last(self._looks) else None

    @property
    def verdict(self) -> Verdict:
        """Return the verdict on the looks so far."""
        return judge(self._looks)

    @property
    def enough(self) -> bool:
        """Whether the run may end before its last step, which takes enough looks to be sure that it has converged."""
        looks = [look for look in self._looks if look["step"] > self.warmup] if self.stops else []
        return len(looks) >= FEWEST_LOOKS and judge(looks).word == "converged"

    @cached_property
    def _features(self) -> TeacherFeatures | None:
        return TeacherFeatures.of(self.teacher, self.t_range[0])

    @cached_property
    def noises(self) -> Noises:
        """Return the noises from which every look starts."""
        return Noises(self.teacher.shape, self.conditions, self.plan.count)

    @cached_property
    def _path(self) -> TeacherPath:
        return TeacherPath(self.teacher, self.noises, self.t_range, self._features, self.folder)

    def truth(self, device: torch.device) -> PathEnds:
        """Return the ends of the teacher's path: known already, read from the run's folder, or solved now."""
        self._truth = self._truth or self._path.stored() or self._path.solve(device)
        return self._truth
