"""The rows of an evaluation: the teacher's own samplers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from bootdiff.condition import Condition
from bootdiff.solvers import Heun, ddim, even_times, solve, trailing_times
from bootdiff.teachers import NetworkTeacher, Teacher

#: DDIM steps of the full table
DDIM_STEPS = (1, 2, 4, 8, 10, 16, 50)
HEUN_STEPS = 50
#: what the row of a run's first stage has for a spacing
FIRST_STAGE = "BOOT"
#: from noises (b, *shape) and their conditions to samples
Sampling = Callable[[Tensor, Condition], Tensor]


@dataclass(frozen=True)
class Candidate:
    """One sampler behind a row; of several with the same ``row`` the best counts.

    Args:
        row: the row's name, such as ``"DDIM 10"``.
        spacing: how its times are spaced.
        calls: network calls an image.
        sample: from noises and their conditions to samples.
        same_path: whether its samples are compared with the path of the same noises.
    """

    row: str
    spacing: str
    calls: int
    sample: Sampling
    same_path: bool = True


def teacher_candidates(teacher: Teacher, t_range: tuple[float, float], steps: Sequence[int]) -> list[Candidate]:
    """DDIM at each number of steps: the teacher's own rows, and rows from the student's t_max where it is another.

    Each of the teacher's own rows has two candidates: evenly spaced over the teacher's range, and the scheduler's own.
    """
    low, high = teacher.t_range
    candidates = []
    for count in steps:
        candidates.append(
            Candidate(f"DDIM {count}", "trailing", count, ddim_sampler(teacher, trailing_times(count, low, high)))
        )
        own = own_times(teacher, count)
        if own:
            candidates.append(Candidate(f"DDIM {count}", "scheduler's own", count, ddim_sampler(teacher, own)))
    if from_elsewhere(teacher, t_range):
        for count in steps:
            name = f"DDIM {count} from t = {t_range[1]:.3g}"
            candidates.append(
                Candidate(name, "trailing", count, ddim_sampler(teacher, trailing_times(count, *t_range)))
            )
    return candidates


def heun_candidate(teacher: Teacher, t_range: tuple[float, float]) -> Candidate:
    """50 Heun steps of the Signal-ODE over this range: the ground truth of a student that learned it."""
    name = f"Heun {HEUN_STEPS}" + (f" from t = {t_range[1]:.3g}" if from_elsewhere(teacher, t_range) else "")
    return Candidate(name, "even", 2 * HEUN_STEPS, reference_path(teacher, *t_range))


def from_elsewhere(teacher: Teacher, t_range: tuple[float, float]) -> bool:
    """Whether a path starts at another time than the teacher's own."""
    return abs(t_range[1] - teacher.t_range[1]) > 1e-3


def reference_path(teacher: Teacher, t_min: float, t_max: float, steps: int = HEUN_STEPS) -> Sampling:
    """The Signal-ODE's Heun solution: the ground truth of the distillation for each noise (method: Eqs. 6 and 16)."""
    times = even_times(steps, t_min, t_max)
    return lambda eps, condition: solve(teacher, eps, times, Heun(), condition)[-1]


def own_times(teacher: Teacher, steps: int) -> list[float] | None:
    """The times that a DDIM sampler visits with the scheduler's own spacing, if the teacher came with a scheduler."""
    denoiser = teacher.denoiser
    config = getattr(denoiser, "scheduler_config", None)
    if config is None or not isinstance(denoiser, NetworkTeacher):
        return None
    from bootdiff.teachers.scheduler import spaced_timesteps

    timesteps = spaced_timesteps(config, steps)
    return None if timesteps is None else [float(teacher.schedule.time(t)) for t in timesteps]


def ddim_sampler(teacher: Teacher, times: list[float]) -> Sampling:
    """DDIM at these times."""
    return lambda eps, condition: ddim(teacher, eps, times, condition)
