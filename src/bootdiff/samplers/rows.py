"""The rows of a table: what was sampled, and how.

A row is a value, and its name is made from it. The code never reads a name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.solvers import Heun, ddim, even_times, solve
from bootdiff.teachers import Teacher

#: the number of steps in which Heun's solver finds the path's exact end
HEUN_STEPS = 50
#: the most steps or calls that may be asked for
MOST_STEPS = 1000
#: the name of the sampler that finds the path's exact end
PATH = "path"
#: the names of the samplers of a student, and of a student with a few steps of its teacher
ONE_CALL, REFINED = "one call", "refined"
#: those of a student that is called several times: with DDIM steps in between, or with fresh noise
FEW_STEPS, CONSISTENCY = "few steps", "consistency"
#: the spacing of a consistency student's times that were searched
SEARCHED = "searched"
#: the stage of the student that a run of two stages makes first
FIRST = "first"

Kind = Literal["teacher", "student"]
#: a function from noises (b, *shape) and their conditions to samples (b, *shape)
Sampling = Callable[[Tensor, Condition], Tensor]


@dataclass(frozen=True)
class Row:
    """What was sampled, and how.

    Args:
        kind: ``"teacher"`` or ``"student"``.
        sampler: a teacher's: ``"ddim"``, ``"dpm-solver++"``, …, or ``"path"``, which is 50 Heun steps of the
            Signal-ODE; a student's: ``"one call"``, ``"few steps"``, ``"consistency"`` or ``"refined"``.
        steps: the sampler's steps; for a refined student the steps of its teacher, for one
            that is called several times its calls.
        calls: evaluations of the network for one image. Guidance by a second pass counts two a step.
        spacing: how the sampler's times are spaced; None where there is nothing to space.
        method: the method that trained a student.
        stage: for a student of an earlier stage of its run ``"first"``, or the later stage's name; ``"both"`` for both
            teachers of a cascade.
        start: the time at which sampling starts, where it is not the teacher's own; for a refined student the time at
            which its teacher takes over.
        end: the time at which a path ends, where ``start`` is given.
        title: a student's title, where several are compared.
        best_of: for a teacher's row: the number of calls within which no other sampler and spacing was better.
        data_free: for a student's row: whether its training read no image of a data set.
    """

    kind: Kind
    sampler: str
    steps: int
    calls: int
    spacing: str | None = None
    method: str | None = None
    stage: str | None = None
    start: float | None = None
    end: float | None = None
    title: str | None = None
    best_of: int | None = None
    data_free: bool = True

    @property
    def identity(self) -> dict[str, Any]:
        """Return what the samples depend on: every field but those that only concern a table."""
        return {key: value for key, value in asdict(self).items() if key not in ("title", "best_of", "data_free")}

    @property
    def name(self) -> str:
        """Return the row's name in tables and messages, such as ``"DDIM 10"``; the code never reads it."""
        if self.kind == "student":
            of_stage = "first stage" if self.stage == FIRST else f"stage {self.stage}"
            title = self.title or ("student" if self.stage is None else of_stage)
            title = title if self.data_free else f"{title} (learned from images)"
            if self.sampler in (FEW_STEPS, CONSISTENCY):
                return f"{title}, {self.steps} calls" + (" at searched times" if self.spacing == SEARCHED else "")
            return f"{title} + {self.steps} DDIM" if self.sampler == REFINED else title
        steps = f"{self.steps} + {self.steps}" if self.stage == "both" else f"{self.steps}"
        start = "" if self.start is None else f" from t = {self.start:.3g}"
        name = f"{sampler_name(self.sampler)} {steps}{start}"
        calls = "1 call" if self.best_of == 1 else f"{self.best_of} calls"
        return name if self.best_of is None else f"best within {calls}: {name}, {self.spacing}"


def sampler_name(sampler: str) -> str:
    """Return what a teacher's sampler is called in tables."""
    from bootdiff.samplers.kinds import NAMES

    return NAMES.get(sampler, sampler)


@dataclass(frozen=True)
class Candidate:
    """A row that can be measured.

    Args:
        row: the row that says what is sampled, and how.
        sample: the function from noises and their conditions to samples.
        same_path: whether its samples are compared with the exact path of the same noises.
    """

    row: Row
    sample: Sampling
    same_path: bool = True

    def best_within(self, calls: int) -> Candidate:
        """Return this candidate marked as the teacher's best row within so many calls."""
        return replace(self, row=replace(self.row, best_of=calls))


def is_student(row: Mapping[str, Any]) -> bool:
    """Return whether a measured row is a finished student's own.

    It is not if the student is that of an earlier stage, or was helped by its teacher.
    """
    return row["kind"] == "student" and row["sampler"] == ONE_CALL and row["stage"] is None


def student_row(rows: Any) -> Mapping[str, Any] | None:
    """Return the first row of a finished student among measured rows; None if there is none."""
    return next((row for row in rows if is_student(row)), None)


def path_end(teacher: Teacher, t_range: tuple[float, float]) -> Candidate:
    """Return 50 Heun steps of the Signal-ODE over this range of times.

    Their result is the ground truth of a student that learned the range.
    """
    from bootdiff.teachers.guidance import calls_an_answer

    start = t_range[1] if starts_elsewhere(teacher, t_range) else None
    calls = (2 * HEUN_STEPS + 1) * calls_an_answer(teacher)  # the first of them finds where the path begins
    row = Row("teacher", PATH, HEUN_STEPS, calls, "even", start=start, end=None if start is None else t_range[0])
    return Candidate(row, reference_path(teacher, *t_range), same_path=False)


def starts_elsewhere(teacher: Teacher, t_range: tuple[float, float]) -> bool:
    """Return whether a path starts at another time than the teacher's own."""
    return abs(t_range[1] - teacher.t_range[1]) > 1e-3


def reference_path(teacher: Teacher, t_min: float, t_max: float, steps: int = HEUN_STEPS) -> Sampling:
    """Return a sampler that solves the Signal-ODE by Heun's method (Eqs. 6 and 16).

    Its answer is the ground truth of the distillation for each noise.
    """
    times = even_times(steps, t_min, t_max)
    return lambda eps, condition: solve(teacher, eps, times, Heun(), condition)[-1]


def ddim_sampler(teacher: Teacher, times: list[float]) -> Sampling:
    """Return a sampler that takes DDIM steps at these times."""
    return lambda eps, condition: ddim(teacher, eps, times, condition)
