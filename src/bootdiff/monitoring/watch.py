"""Looking at a student while it learns, without an image: the same noises, the student's answers, the teacher's path.

Costs about two in a hundred of the run's network passes: the teacher solves its path from a few noises once, and every
look is one call of the student on each, and one of the teacher on what it made.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.core.randomness import sample_noise
from bootdiff.data.conditions import Conditions
from bootdiff.methods.settings import DistillationSettings
from bootdiff.monitoring.best import BestLook
from bootdiff.monitoring.convergence import FILE, FRECHET, NOISE, Verdict, is_look, judge, read_watch, relative_distance
from bootdiff.monitoring.path_ends import PathEnds, Space, channels, colours, diversity_of, mean_square
from bootdiff.monitoring.teacher_features import TeacherFeatures
from bootdiff.solvers import Euler, Heun, Solver, even_times, solve
from bootdiff.storage.files import load_tensors, save_tensors, write_whole
from bootdiff.students import Student
from bootdiff.system.notes import note
from bootdiff.teachers import Teacher
from bootdiff.training.log import append_line, truncate_log

#: the stored ends of the teacher's path
SOLUTIONS = "path_ends.safetensors"
#: said where the teacher's features are not finite
OVERFLOW = "the teacher's features of its own samples are not finite, so looks compare the samples' values instead"
#: the weights of the best look so far
FOLDER_OF_THE_BEST = "best"
#: no user's samples start from these noises; torch's generators on a CPU see the lowest 32 bits of a seed only
SEED = 0xB007_D1FF
#: noises whose path is solved exactly, by this many Heun steps; the others' by Euler's
EXACT, EXACT_STEPS, OTHER_STEPS = 64, 16, 12
#: noises that are tried, and values that their samples may have in all
COUNTS, MOST_VALUES = (512, 256, 128, 64, 32, 16, 8, 4), 2**23
#: of the teacher's variance: many samples' features tell smaller differences apart
FEATURE_NOISE = 0.005
#: looks at most
LOOKS = 24
#: of the run's passes
SHARE = 0.02


@dataclass(frozen=True)
class WatchPlan:
    """How many noises, and how often.

    Args:
        count: noises, even; the first half and the second share their conditions.
        every: steps between looks.
    """

    count: int
    every: int

    @classmethod
    def of(
        cls, settings: DistillationSettings, shape: Sequence[int], processes: int = 1, shown: bool = False
    ) -> WatchPlan | None:
        """What two in a hundred of the passes pay for; None where they pay for too little, or nothing is asked.

        ``watch_every`` and ``stop_when`` ask for looks whatever they cost. While one process looks the others wait, so
        that each of several pays.

        Args:
            shown: whether the teacher is shown every sample (``TeacherFeatures``).
        """
        if settings.watch_every == 0:
            return None
        guided = 2 if settings.guidance_scale is not None or settings.guidance_range is not None else 1
        budget = SHARE * settings.steps * settings.batch_size * settings.passes / processes
        asked = settings.watch_every is not None or settings.stop_when == "converged"
        fits = max(COUNTS[-1], MOST_VALUES // math.prod(shape))
        for count in COUNTS:
            left = budget - guided * _setup(count) - shown * count
            looks = min(LOOKS, int(left / (count + min(count, EXACT) + shown * count)))
            if count <= fits and ((looks >= LOOKS // 2 and count >= EXACT // 2) or (asked and count <= EXACT)):
                looks = max(looks, LOOKS // 2)
                return cls(count, settings.watch_every or max(1, settings.steps // looks))
        return None


def _setup(count: int) -> int:
    """Passes of the teacher before the first step."""
    exact = min(count, EXACT)
    return exact * (2 * EXACT_STEPS + 1) + (count - exact) * (OTHER_STEPS + 1)


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
        comparable, looks = self._stored() is not None, self._looks
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
        line = {"step": step, **self._figures(student)}
        if self._features is not None and self.truth(next(student.parameters()).device).by_values:
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
        return len(looks) >= LOOKS // 2 and judge(looks).word == "converged"

    def _figures(self, student: Student) -> dict[str, Any]:
        truth = self.truth(next(student.parameters()).device)
        made, views, textures = self._sampled(
            student, None, self.plan.count, None if truth.by_values else self._features
        )
        finite = bool(torch.isfinite(made).all() and torch.isfinite(views).all())
        exact = min(EXACT, self.plan.count)
        edge, *_ = self._sampled(student, self.t_range[1], exact)
        many = self.plan.count >= COUNTS[0] and not truth.by_values
        return {
            "path_error": mean_square(made[:exact] - truth.ends[:exact]) if finite else math.inf,
            # Eq. 9, as the teacher's own limit leaves it.
            "boundary_error": mean_square(edge - student.limit(truth.starts)),
            "frechet_distance": truth.space.distance(views) if finite else math.inf,
            "distance_noise": FEATURE_NOISE if many else NOISE[FRECHET],
            "diversity": diversity_of(made),
            "teacher_diversity": truth.diversity,
            "teacher_variance": truth.space.variance,
            **_texture(truth.texture, textures),
            "count": self.plan.count,
            **channels("", made, truth.saturated),
            **channels("teacher_", truth.ends, truth.saturated),
            **colours("", made),
            **colours("teacher_", truth.ends),
        }

    @cached_property
    def _features(self) -> TeacherFeatures | None:
        return TeacherFeatures.of(self.teacher, self.t_range[0])

    def _sampled(
        self, student: Student, t: float | None, count: int, features: TeacherFeatures | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(the student's samples, their views, their textures), on the CPU."""
        device, parts = next(student.parameters()).device, []
        for eps, condition in self._batches(count):
            made = student.sample(eps.to(device), condition.to(device), t)
            parts.append((made.cpu(), *_views(features, made, condition.to(device))))
        samples, views, textures = (torch.cat(part) for part in zip(*parts, strict=True))
        return samples, views, textures

    def _batches(self, count: int):
        """Noises and conditions, few enough at a time for any network; the two halves share their conditions."""
        shape, half = tuple(self.teacher.shape), self.plan.count // 2
        size = max(1, min(EXACT, 2**19 // math.prod(shape)))
        for start in range(0, count, size):
            stop = min(count, start + size)
            parts = [
                self.conditions.listed(SEED, low % half, low % half + high - low)
                for low, high in _within(start, stop, half)
            ]
            condition = parts[0] if len(parts) == 1 else Condition.cat(parts)
            yield sample_noise(SEED, start, stop, shape), condition

    def truth(self, device: torch.device) -> PathEnds:
        """The ends of the path: known, from the run's folder, or solved now."""
        self._truth = self._truth or self._stored() or self._solved(device)
        return self._truth

    def _stored(self) -> PathEnds | None:
        path = self.folder / SOLUTIONS
        stored = load_tensors(path) if path.exists() else None
        # Another number of looks, and so of noises, may be asked for than before.
        if stored is None or "ends" not in stored or stored["ends"].shape != (self.plan.count, *self.teacher.shape):
            return None
        stored.setdefault("textures", torch.empty(self.plan.count, 0))  # a run that an earlier version began
        return PathEnds(**stored) if stored.keys() == PathEnds.__dataclass_fields__.keys() else None

    def _solved(self, device: torch.device) -> PathEnds:
        exact, parts, first = min(EXACT, self.plan.count), [], 0
        for eps, condition in self._batches(self.plan.count):
            ends, starts = self._solve(eps.to(device), condition.to(device), first < exact)
            parts.append((ends.cpu(), starts.cpu(), *_views(self._features, ends, condition.to(device))))
            first += len(eps)
        ends, starts, views, textures = (torch.cat(part) for part in zip(*parts, strict=True))
        # Half precision may overflow at images where it does not on the path.
        if not bool(torch.isfinite(views).all() and torch.isfinite(textures).all()):
            note(OVERFLOW)
            views, textures = ends.flatten(1), textures[:, :0]
        found = {"ends": ends, "starts": starts[:exact], "views": views, "textures": textures}
        write_whole(self.folder / SOLUTIONS, lambda temporary: save_tensors(temporary, found))
        return PathEnds(**found)

    def _solve(self, eps: Tensor, condition: Condition, exactly: bool) -> tuple[Tensor, Tensor]:
        solver: Solver = Heun() if exactly else Euler()
        times = even_times(EXACT_STEPS if exactly else OTHER_STEPS, *self.t_range)
        path = solve(self.teacher, eps, times, solver, condition)
        return path[-1], path[0]


def _views(features: TeacherFeatures | None, samples: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
    """What distributions are compared by, on the CPU: the teacher's features, or values and nothing without them."""
    if features is None:
        return samples.flatten(1).cpu(), torch.empty(len(samples), 0)
    with features.textures() as textures:
        views = features.read(samples, condition)
    return views.cpu(), textures[-1].cpu() if textures else torch.empty(len(samples), 0)


def _texture(space: Space | None, textures: Tensor) -> dict[str, float]:
    """How far the student's textures are from the teacher's, where its network shows any."""
    if space is None:
        return {}
    return {"texture_distance": space.distance(textures), "teacher_texture_variance": space.variance}


def _within(start: int, stop: int, half: int) -> list[tuple[int, int]]:
    """A range of samples, cut where the second half begins."""
    cuts = sorted({start, stop, *([half] if start < half < stop else [])})
    return list(pairwise(cuts))
