"""Teachers sampled by diffusers' own schedulers, which are asked for their steps; none is written here.

To a scheduler every teacher is one function, guidance and limits included: it answers with the velocity
``v = alpha eps − sigma x_0`` (or the flow's), from which a scheduler finds x_0 without dividing by a small alpha.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError, nearest, shown
from bootdiff.samplers.kinds import Kind, kinds_for
from bootdiff.samplers.rows import MOST_STEPS, Candidate, Row, ddim_sampler
from bootdiff.schedules import EDM, RectifiedFlow, Schedule, VariancePreserving
from bootdiff.solvers import trailing_times
from bootdiff.system.quiet import quietly
from bootdiff.teachers import Limit, Teacher
from bootdiff.teachers.guidance import calls_an_answer

#: sigma_data of the preconditioning that an EDM scheduler expects and undoes; any value will do
SIGMA_DATA = 0.5
#: the square root of the smallest beta in a table made from a continuous schedule
SMALLEST_SIGMA = 1e-3
#: the settings of a scheduler for each way to space its timesteps
SPACINGS: dict[str, dict[str, Any]] = {
    "trailing": {"timestep_spacing": "trailing"},
    "leading": {"timestep_spacing": "leading", "steps_offset": 1},
    # "leading" bounds the sigmas of diffusers' Heun from above; its multistep samplers take the table's in any case.
    "karras": {"use_karras_sigmas": True, "timestep_spacing": "leading", "steps_offset": 1},
    "own": {},
}
#: our own spacing for DDIM: even steps between the first and the last time at which the teacher may be asked
EVEN = "even"
#: the errors that diffusers raises where a sampler cannot make so few steps, or cannot use the table
UNFIT = (ValueError, IndexError, ZeroDivisionError, AssertionError)


def read_samplers(words: Sequence[str], known: Sequence[str], most: int = MOST_STEPS) -> dict[str, tuple[int, ...]]:
    """Read words such as ``ddim:2,20``, and return the numbers of steps by the sampler's name.

    Args:
        known: the names of the samplers that fit the teacher.
        most: the number of timesteps in the teacher's table, which no sampler's steps can exceed.

    Raises:
        BootdiffError: if a sampler does not exist or does not fit, or if steps are no numbers from 1 to ``most``.
    """
    asked: dict[str, tuple[int, ...]] = {}
    for word in " ".join(words).split():
        name, _, numbers = word.partition(":")
        if name not in known:
            raise BootdiffError(
                f"there is no sampler '{name:.40}' for this teacher; expected one of {', '.join(known)}."
                + nearest(name, known)
            )
        try:
            steps = tuple(int(number) for number in numbers.split(","))
        except ValueError:
            steps = (0,)
        if not all(1 <= step <= most for step in steps):
            raise BootdiffError(f"--samplers expects NAME:STEPS,STEPS with steps from 1 to {most}, got {shown(word)}.")
        asked[name] = tuple(sorted({*asked.get(name, ()), *steps}))
    return asked


def candidates(teacher: Teacher, name: str, steps: int, limit: Limit | None = None) -> list[Candidate]:
    """Return a sampler with so many steps, once for every spacing with which it can make them.

    ``"ddim"`` is there for every teacher: diffusers' own where the schedule has a table of betas, and ours, with even
    steps between the times at which the teacher may be asked.

    Args:
        limit: of the last step's samples; None for the teacher's own.
    """
    cost, kind = calls_an_answer(teacher), kinds_for(teacher).get(name)
    found = (
        []
        if kind is None
        else list(_stock(teacher, name, kind, steps, cost, teacher.limit if limit is None else limit))
    )
    if name == "ddim":
        times = trailing_times(steps, *teacher.t_range)
        found.append(Candidate(Row("teacher", "ddim", steps, cost * steps, EVEN), ddim_sampler(teacher, times)))
    return found


def _stock(teacher: Teacher, name: str, kind: Kind, steps: int, cost: int, limit: Limit) -> Iterator[Candidate]:
    """Yield one of diffusers' schedulers with each of its spacings, except those that cannot make so many steps."""
    for spacing in kind.spacings:
        try:
            scheduler = _scheduler(teacher, kind, spacing)
            with quietly():
                scheduler.set_timesteps(steps)
            sample = _sampler(teacher, scheduler, steps, kind.random, limit)
        except UNFIT:
            continue
        row = Row("teacher", name, steps, cost * len(scheduler.timesteps), spacing)
        yield Candidate(row, sample, same_path=not kind.random)


def all_samplers(teacher: Teacher) -> list[str]:
    """Return the names of all samplers that fit a teacher."""
    return list(dict.fromkeys(["ddim", *kinds_for(teacher)]))


def deterministic(teacher: Teacher) -> list[str]:
    """Return the samplers that a teacher's best is chosen from: all that draw no noise on the way."""
    kinds = kinds_for(teacher)
    return [name for name in all_samplers(teacher) if name not in kinds or not kinds[name].random]


def within(teacher: Teacher, calls: int) -> Iterator[Candidate]:
    """Yield every sampler and spacing with as many steps as it can make within so many network calls."""
    most = calls // calls_an_answer(teacher)
    for name in deterministic(teacher) if most else ():
        # Heun evaluates the network twice a step but the last, PNDM once more than it has steps.
        for steps in (most, most - 1, (most + 1) // 2):
            fitting = [one for one in candidates(teacher, name, steps) if one.row.calls <= calls] if steps else []
            if fitting:
                yield from fitting
                break


def _sampler(
    teacher: Teacher, made: Any, steps: int, random: bool, limit: Limit
) -> Callable[[Tensor, Condition], Tensor]:
    levels = [_level(teacher.schedule, t) for t in _visited(teacher.schedule, made)]
    if not all(math.isfinite(number) for level in levels for number in level):
        raise ValueError("a timestep outside the schedule")

    @torch.no_grad()
    def sample(eps: Tensor, condition: Condition) -> Tensor:
        scheduler = copy.deepcopy(made)  # which counts its steps, and must do so for this batch alone
        with quietly():
            scheduler.set_timesteps(steps)  # forgets the last batch
            if hasattr(scheduler, "set_begin_index"):  # where two timesteps are equal it would look for the second
                scheduler.set_begin_index(0)
        x = eps * float(scheduler.init_noise_sigma) if hasattr(scheduler, "init_noise_sigma") else eps
        drawn = {"generator": _generators(eps)} if random else {}
        for t, level in zip(scheduler.timesteps, levels, strict=True):
            x_t = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            out = _answer(teacher, x if isinstance(teacher.schedule, EDM) else x_t, level, condition)
            x = scheduler.step(out, t, x, **drawn).prev_sample
        return limit(x)

    return sample


def _visited(schedule: Schedule, scheduler: Any) -> Tensor:
    """Return the timesteps at which a scheduler asks the network, (n,).

    They are real numbers where the scheduler itself rounds those of Karras's sigmas.
    """
    if not getattr(scheduler.config, "use_karras_sigmas", False):
        return scheduler.timesteps
    table = torch.arange(schedule.num_timesteps, dtype=torch.float64) / (schedule.num_timesteps - 1)
    known = np.nan_to_num(schedule.lambda_(table).numpy(), neginf=-30, posinf=30)
    sigmas = np.log(np.asarray(scheduler.sigmas[: len(scheduler.timesteps)], dtype=np.float64))
    return torch.from_numpy(np.interp(sigmas, known, np.arange(schedule.num_timesteps)))


def _level(schedule: Schedule, timestep: Tensor) -> tuple[float, float, float]:
    """Return (t, alpha, sigma) at a scheduler's timestep."""
    t = schedule.time(timestep.cpu()).reshape(1)
    alpha, sigma = schedule.alpha_sigma(t)
    return float(t), float(alpha), float(sigma)


def _answer(teacher: Teacher, x_t: Tensor, level: tuple[float, float, float], condition: Condition) -> Tensor:
    """Return the velocity at a scheduler's timestep, (b, *shape).

    It is alpha eps − sigma x_0, the flow's eps − x_0, or EDM's raw output.
    """
    t, alpha, sigma = level
    x_0 = teacher.x0(x_t, torch.full((len(x_t),), t, device=x_t.device), condition)
    if isinstance(teacher.schedule, RectifiedFlow):
        return (x_t - x_0) / sigma
    if isinstance(teacher.schedule, EDM):  # the scheduler undoes this preconditioning
        both = sigma**2 + SIGMA_DATA**2
        return (x_0 - SIGMA_DATA**2 / both * x_t) * (both**0.5 / (sigma * SIGMA_DATA))
    if sigma < SMALLEST_SIGMA:  # as in the scheduler's own table: a continuous schedule ends without any noise
        alpha, sigma = (1 - SMALLEST_SIGMA**2) ** 0.5, SMALLEST_SIGMA
    # alpha eps − sigma x_0 with eps = (x_t − alpha x_0) / sigma and alpha² + sigma² = 1
    return (alpha * x_t - x_0) / sigma


def _scheduler(teacher: Teacher, kind: Kind, spacing: str) -> Any:
    import diffusers

    schedule = teacher.schedule
    words: dict[str, Any] = {"num_train_timesteps": schedule.num_timesteps}
    if isinstance(schedule, VariancePreserving):
        words |= {"trained_betas": _betas(schedule), "prediction_type": "v_prediction", **SPACINGS[spacing]}
        words |= {"clip_sample": False} if kind.scheduler in ("DDPMScheduler", "DDIMScheduler") else {}
    elif isinstance(schedule, RectifiedFlow):
        words |= {"shift": schedule.shift}
    elif isinstance(schedule, EDM):
        ends = {"sigma_min": schedule.sigma_min, "sigma_max": schedule.sigma_max, "sigma_data": SIGMA_DATA}
        words |= {**ends, "sigma_schedule": "exponential" if schedule.rho is None else "karras"}
        words |= {} if schedule.rho is None else {"rho": schedule.rho}
    with quietly():
        return getattr(diffusers, kind.scheduler)(**words, **kind.fields)


def _betas(schedule: Schedule) -> list[float]:
    """Return the table of betas whose running products are alpha² at the network's own timesteps."""
    steps = schedule.num_timesteps
    t = torch.arange(steps, dtype=torch.float64) / (steps - 1)
    alpha, _ = schedule.split(schedule.lambda_(t))
    products = alpha.square()
    before = torch.cat([torch.ones(1, dtype=torch.float64), products[:-1]])
    # A continuous schedule begins without noise, where a solver's log(sigma) is infinite.
    return (1 - products / before).clamp(SMALLEST_SIGMA**2, 0.999999).tolist()


def _generators(eps: Tensor) -> list[torch.Generator]:
    """Return a random generator for every sample, seeded by its noise.

    What a sample draws therefore does not depend on the batch that it is in.
    """
    seeds = eps.flatten(1)[:, :2].float().cpu().contiguous().view(torch.int32).long().sum(1).abs().tolist()
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
