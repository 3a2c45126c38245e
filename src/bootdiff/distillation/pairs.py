"""Making a run's stored samples: the end of the teacher's path, its states at several times, or a sampler's images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from bootdiff.config.mixins import PATH_SOLVERS
from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError, nearest
from bootdiff.samplers.kinds import kinds_for
from bootdiff.samplers.rows import Sampling
from bootdiff.samplers.stock import candidates
from bootdiff.solvers import Solver, even_times, solve
from bootdiff.teachers import Teacher, limit_of


@dataclass(frozen=True)
class PathSolver:
    """Solves the Signal-ODE (Eq. 6) from t_max to t_min in even steps.

    Args:
        teacher: f, guided and limited as the targets are.
        solver: takes the steps; Heun's is the reference (Eq. 16).
        times: the times at the steps' ends, falling, from t_max to t_min.
        every: of these times every n-th is kept, the first one too; 0 keeps the path's end alone.
        device: the device on which the teacher is asked.
    """

    teacher: Teacher
    solver: Solver
    times: Sequence[float]
    every: int
    device: torch.device | str

    @torch.no_grad()
    def __call__(self, noise: Tensor, condition: Condition) -> Mapping[str, Tensor]:
        """Return ``data``, the ends y_{t_min} (b, *shape), or ``states``, the y_t at the kept times (b, M, *shape)."""
        path = solve(self.teacher, noise.to(self.device), self.times, self.solver, condition.to(self.device))
        return {"data": path[-1]} if self.every == 0 else {"states": torch.stack(path[:: self.every], 1)}

    @property
    def kept(self) -> list[float]:
        """The times whose states are kept, falling from t_max to t_min; none where the end alone is kept."""
        return list(self.times[:: self.every]) if self.every else []

    def modules(self) -> Sequence[nn.Module]:
        """Return the networks that are asked, to be moved to the training device: the teacher."""
        return (self.teacher,)


@dataclass(frozen=True)
class SamplerSolver:
    """Makes samples as one of diffusers' samplers does, from its own first time to its last.

    Args:
        teacher: f, guided and limited as the targets are.
        sample: the sampler, of noises (b, *shape) and their conditions.
        device: the device on which the teacher is asked.
    """

    #: a sampler's states are those of no path, and none is kept
    kept: ClassVar[Sequence[float]] = ()

    teacher: Teacher
    sample: Sampling
    device: torch.device | str

    @torch.no_grad()
    def __call__(self, noise: Tensor, condition: Condition) -> Mapping[str, Tensor]:
        """Return ``data``, the sampler's images of the noises, (b, *shape)."""
        return {"data": self.sample(noise.to(self.device), condition.to(self.device))}

    def modules(self) -> Sequence[nn.Module]:
        """Return the networks that are asked, to be moved to the training device: the teacher."""
        return (self.teacher,)


def sampler_for(teacher: Teacher, word: str, steps: int) -> Sampling:
    """Return the sampler that a word such as ``dpm-solver:leading`` names, with so many steps.

    Args:
        teacher: f, limited as the targets are; the samples are limited in the same way.
        word: NAME:SPACING.

    Raises:
        BootdiffError: if the teacher has no such sampler or spacing, if it draws noise on the way, so that no noise
            makes one image, or if it cannot take so many steps.
    """
    kinds = {name: kind for name, kind in kinds_for(teacher).items() if not kind.random}
    known = [f"{name}:{spacing}" for name, kind in kinds.items() for spacing in kind.spacings]
    if word not in known:
        several = [*PATH_SOLVERS, *known]
        raise BootdiffError(
            f"pair_solver expects one of {', '.join(several)} for {teacher.name}, got {word:.40}."
            + nearest(word, several)
        )
    name, _, spacing = word.partition(":")
    for candidate in candidates(teacher, name, steps, limit_of(teacher)):
        if candidate.row.spacing == spacing:
            return candidate.sample
    raise BootdiffError(
        f"pair_solver {word} cannot take {steps} steps; choose another pair_steps (--set pair_steps=N)."
    )


def path_times(steps: int, states: int, t_min: float, t_max: float) -> tuple[list[float], int]:
    """Return the falling times of a path's steps, and every how many of them one of its kept states stands.

    Args:
        steps: the fewest steps.
        states: the number of states to keep, evenly spaced from t_max to t_min; 1 for the end alone. As many steps are
            taken as it needs for every state to stand at the end of one.
    """
    if states == 1:
        return even_times(steps, t_min, t_max), 0
    every = math.ceil(steps / (states - 1))
    return even_times(every * (states - 1), t_min, t_max), every
