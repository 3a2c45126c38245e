"""A teacher under diffusers' own samplers: none is written here, each scheduler is asked for its steps.

Every teacher is one function to them, guidance and limits included: it answers with the velocity
``v = alpha eps − sigma x_0`` (or the flow's), from which a scheduler finds x_0 without dividing by a small alpha.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bootdiff.condition import Condition
from bootdiff.errors import BootdiffError, nearest
from bootdiff.evaluation.rows import Candidate
from bootdiff.quiet import quietly
from bootdiff.schedules import EDM, RectifiedFlow, Schedule, VariancePreserving
from bootdiff.teachers import Teacher

#: of the preconditioning between an EDM scheduler and us; any value will do
SIGMA_DATA = 0.5
#: of a table made from a continuous schedule: the square root of its smallest beta
SMALLEST_SIGMA = 1e-3
#: above so many steps one spacing is enough
LONG = 50


@dataclass(frozen=True)
class Kind:
    """One of diffusers' schedulers.

    Args:
        row: what its rows are called.
        scheduler: the class.
        fields: what it is told beside the betas.
        spacings: of its timesteps.
        random: whether it draws noise at every step.
    """

    row: str
    scheduler: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    spacings: Sequence[str] = ("trailing", "leading")
    random: bool = False


#: for teachers with a table of betas
VARIANCE_PRESERVING = {
    "ddpm": Kind("DDPM", "DDPMScheduler", {"variance_type": "fixed_small"}, random=True),
    "ddim": Kind("DDIM", "DDIMScheduler", {"set_alpha_to_one": True}),
    "pndm": Kind("PNDM", "PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": True}),
    "dpm-solver": Kind(
        "DPM-Solver-2", "DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}
    ),
    "dpm-solver++": Kind("DPM-Solver++", "DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "deis": Kind("DEIS", "DEISMultistepScheduler"),
    "unipc": Kind("UniPC", "UniPCMultistepScheduler"),
    "heun": Kind("Heun", "HeunDiscreteScheduler"),
    "edm": Kind("EDM", "HeunDiscreteScheduler", {"use_karras_sigmas": True}, ("leading",)),
}
#: for EDM's own teachers
PRECONDITIONED = {
    "euler": Kind("Euler", "EDMEulerScheduler", spacings=("own",)),
    "dpm-solver++": Kind("DPM-Solver++", "EDMDPMSolverMultistepScheduler", spacings=("own",)),
}
#: for rectified flow
FLOW = {
    "euler": Kind("Euler", "FlowMatchEulerDiscreteScheduler", spacings=("own",)),
    "heun": Kind("Heun", "FlowMatchHeunDiscreteScheduler", spacings=("own",)),
}
#: rows of a comparison where none are asked for
DEFAULTS = {
    "ddpm": (250,),
    "ddim": (1, 4, 10, 50),
    "pndm": (10,),
    "dpm-solver": (10,),
    "dpm-solver++": (10,),
    "deis": (10,),
    "unipc": (10,),
    "euler": (1, 4, 10, 50),
    "edm": (18,),
    "heun": (50,),
}


def kinds_for(teacher: Teacher) -> Mapping[str, Kind]:
    """The samplers that fit a teacher's schedule; none for a schedule that diffusers does not have."""
    schedule = teacher.schedule
    if isinstance(schedule, VariancePreserving):
        return VARIANCE_PRESERVING
    if isinstance(schedule, RectifiedFlow):
        return FLOW
    if isinstance(schedule, EDM):
        return PRECONDITIONED
    return {}


def read_samplers(words: Sequence[str], known: Mapping[str, Kind], most: int = 1000) -> dict[str, tuple[int, ...]]:
    """``ddim:1,10`` and the like, as names and steps; what a comparison shows by default where there are none.

    Args:
        most: timesteps of the teacher's table, and so steps that a sampler can make.

    Raises:
        BootdiffError: for a sampler that does not exist or does not fit, or steps that are no numbers.
    """
    if not " ".join(words).split():
        return {
            name: tuple(dict.fromkeys(min(step, most) for step in steps))
            for name, steps in DEFAULTS.items()
            if name in known
        }
    asked: dict[str, tuple[int, ...]] = {}
    for word in " ".join(words).split():
        name, _, numbers = word.partition(":")
        if name not in known:
            raise BootdiffError(
                f"there is no sampler '{name}' for this teacher; expected one of {', '.join(known)}."
                + nearest(name, list(known))
            )
        try:
            steps = tuple(int(number) for number in numbers.split(","))
        except ValueError:
            steps = (0,)
        if not all(1 <= step <= most for step in steps):
            raise BootdiffError(f"--samplers expects NAME:STEPS,STEPS with steps from 1 to {most}, got '{word}'.")
        asked[name] = tuple(sorted({*asked.get(name, ()), *steps}))
    return asked


def stock_candidates(teacher: Teacher, asked: Mapping[str, Sequence[int]]) -> Iterator[Candidate]:
    """A candidate for every sampler, number of steps and spacing; of several spacings the best counts."""
    kinds = kinds_for(teacher)
    for name, counts in asked.items():
        kind = kinds[name]
        for steps in counts:
            for spacing in kind.spacings[: 1 if steps > LONG or steps == 1 else None]:
                scheduler = _scheduler(teacher, kind, spacing)
                scheduler.set_timesteps(steps)
                sample = _sampler(teacher, scheduler, steps, kind.random)
                yield Candidate(f"{kind.row} {steps}", spacing, len(scheduler.timesteps), sample, not kind.random)


def _sampler(teacher: Teacher, made: Any, steps: int, random: bool) -> Callable[[Tensor, Condition], Tensor]:
    levels = [_level(teacher.schedule, t) for t in made.timesteps]

    @torch.no_grad()
    def sample(eps: Tensor, condition: Condition) -> Tensor:
        scheduler = copy.deepcopy(made)  # which counts its steps, and must do so for this batch alone
        with quietly():
            scheduler.set_timesteps(steps)
        x = eps * float(scheduler.init_noise_sigma) if hasattr(scheduler, "init_noise_sigma") else eps
        drawn = {"generator": _generators(eps)} if random else {}
        for t, level in zip(scheduler.timesteps, levels, strict=True):
            x_t = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            out = _answer(teacher, x if isinstance(teacher.schedule, EDM) else x_t, level, condition)
            x = scheduler.step(out, t, x, **drawn).prev_sample
        return teacher.limit(x)

    return sample


def _level(schedule: Schedule, timestep: Tensor) -> tuple[float, float, float]:
    """(t, alpha, sigma) at a scheduler's timestep."""
    t = schedule.time(timestep.cpu()).reshape(1)
    alpha, sigma = schedule.alpha_sigma(t)
    return float(t), float(alpha), float(sigma)


def _answer(teacher: Teacher, x_t: Tensor, level: tuple[float, float, float], condition: Condition) -> Tensor:
    """The velocity at a scheduler's timestep: alpha eps − sigma x_0, the flow's eps − x_0, or EDM's raw output."""
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
        words |= {"trained_betas": _betas(schedule), "prediction_type": "v_prediction", "timestep_spacing": spacing}
        words |= {"steps_offset": 1} if spacing == "leading" else {}
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
    """The table whose running products are alpha² at the network's own timesteps."""
    steps = schedule.num_timesteps
    t = torch.arange(steps, dtype=torch.float64) / (steps - 1)
    alpha, _ = schedule.split(schedule.lambda_(t))
    products = alpha.square()
    before = torch.cat([torch.ones(1, dtype=torch.float64), products[:-1]])
    # A continuous schedule begins without noise, where a solver's log(sigma) is infinite.
    return (1 - products / before).clamp(SMALLEST_SIGMA**2, 0.999999).tolist()


def _generators(eps: Tensor) -> list[torch.Generator]:
    """One for every sample, seeded by its noise: what is drawn does not depend on the batch that it is drawn in."""
    seeds = eps.flatten(1)[:, :2].float().cpu().contiguous().view(torch.int32).long().sum(1).abs().tolist()
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
