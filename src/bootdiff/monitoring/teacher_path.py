"""The solution of the teacher's path from the fixed noises, which is found once and kept in the run's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.monitoring.noises import Noises, views_of
from bootdiff.monitoring.path_ends import PathEnds
from bootdiff.monitoring.watch_plan import EXACT, EXACT_STEPS, OTHER_STEPS
from bootdiff.solvers import Euler, Heun, Solver, even_times, solve
from bootdiff.storage.files import load_tensors, save_tensors, write_whole
from bootdiff.system.notes import note
from bootdiff.teachers import Teacher
from bootdiff.teachers.features import TeacherFeatures

#: the file in the run's folder that holds the path's ends
SOLUTIONS = "path_ends.safetensors"
#: the note that is written where the teacher's features are not finite
OVERFLOW = "the teacher's features of its own samples are not finite, so looks compare the samples' values instead"


@dataclass(frozen=True)
class TeacherPath:
    """The path from t_max to t_min that the student learns.

    Args:
        teacher: the teacher with guidance, limited as the targets are.
        noises: the noises from which the path starts.
        t_range: (t_min, t_max).
        features: the features that the ends' views are read by; None takes the ends' own values.
        folder: the folder where the ends are kept.
    """

    teacher: Teacher
    noises: Noises
    t_range: tuple[float, float]
    features: TeacherFeatures | None
    folder: Path

    def stored(self) -> PathEnds | None:
        """Return the ends that were solved before; None if none of these noises' ends are stored."""
        path, count = self.folder / SOLUTIONS, self.noises.count
        stored = load_tensors(path) if path.exists() else None
        # Another number of looks, and so of noises, may be asked for than before.
        if stored is None or "ends" not in stored or stored["ends"].shape != (count, *self.teacher.shape):
            return None
        for name in ("textures", "middles"):  # a run that an earlier version began
            stored.setdefault(name, torch.empty(count, 0))
        return PathEnds(**stored) if stored.keys() == PathEnds.__dataclass_fields__.keys() else None

    def solve(self, device: torch.device) -> PathEnds:
        """Solve the path now, keep its ends in the folder, and return them."""
        exact, first = min(EXACT, self.noises.count), 0
        parts: list[list[Tensor]] = []
        for eps, condition in self.noises.batches():
            path = self._from(eps.to(device), condition.to(device), first < exact)
            ends, starts, middles = path[-1], path[0], path[len(path) // 2]
            seen = views_of(self.features, ends, condition.to(device))
            parts.append([ends.cpu(), starts.cpu(), *seen, middles.cpu()])
            first += len(eps)
        ends, starts, views, textures, middles = (torch.cat(part) for part in zip(*parts, strict=True))
        # Half precision may overflow at images where it does not on the path.
        if not bool(torch.isfinite(views).all() and torch.isfinite(textures).all()):
            note(OVERFLOW)
            views, textures = ends.flatten(1), textures[:, :0]
        found = {
            "ends": ends,
            "starts": starts[:exact],
            "views": views,
            "textures": textures,
            "middles": middles[:exact],
        }
        write_whole(self.folder / SOLUTIONS, lambda temporary: save_tensors(temporary, found))
        return PathEnds(**found)

    def _from(self, eps: Tensor, condition: Condition, exactly: bool) -> list[Tensor]:
        """Return the path of these noises from its start to its end, each y_t (b, *shape)."""
        solver: Solver = Heun() if exactly else Euler()
        times = even_times(EXACT_STEPS if exactly else OTHER_STEPS, *self.t_range)
        return solve(self.teacher, eps, times, solver, condition)
