"""The stock schedulers with which a student is called several times, where they compute what our samplers do."""

from __future__ import annotations

from typing import Any

import torch

from bootdiff.samplers.few_step import table_length
from bootdiff.schedules import EDM, BetaTable
from bootdiff.students import Student
from bootdiff.students.boundary import KarrasSkip, LcmSkip
from bootdiff.students.consistency import ConsistencyStudent
from bootdiff.students.denoising import DenoisingStudent
from bootdiff.system.quiet import quietly
from bootdiff.teachers.adapters.base import Adapter
from bootdiff.teachers.limits import Clip, NoLimit
from bootdiff.teachers.loading.scheduler import BetaConfig, betas_of, read_config
from bootdiff.teachers.prediction import Preconditioned

#: the boundary that LCMScheduler itself has
STOCK_LCM = LcmSkip()
#: the number of steps up to which a boundary is compared
COMPARED = 50
#: how far a boundary may be from the scheduler's
NEAR = 1e-4
#: the beta schedules that DDIMScheduler and LCMScheduler know by name
NAMED = ("linear", "scaled_linear", "squaredcos_cap_v2")


def several_steps(student: Student) -> Any:
    """Return the stock scheduler with which the student's own network, told its time, takes several steps.

    It is DDIMScheduler for a denoising student and LCMScheduler for a consistency student with that one's boundary,
    both on the teacher's table of betas up to t_max; and CMStochasticIterativeScheduler for a consistency student of
    EDM's noise levels (``karras_steps``), whose network must be told the scheduler's times (``several_network``). It is
    None where there is none: a jump student is told two times; EDM's and flow schedulers end their steps elsewhere.
    """
    adapter, schedule = student.adapter, student.schedule
    if adapter is None or not adapter.takes_steps:
        return None
    if isinstance(student, ConsistencyStudent) and not (adapter.draws_noise and is_square(adapter)):
        return None
    if isinstance(student, ConsistencyStudent) and has_karras_boundary(student):
        return karras_steps(student)
    if not isinstance(schedule, BetaTable):
        return None
    if isinstance(student, DenoisingStudent):
        return _scheduler(student, "DDIMScheduler", {})
    if isinstance(student, ConsistencyStudent) and has_lcm_boundary(student):
        length = table_length(schedule, student.t_max)
        return _scheduler(student, "LCMScheduler", {"original_inference_steps": student.points or length})
    return None


def is_square(adapter: Adapter) -> bool:
    """Return whether samples are squares: a LatentConsistencyModelPipeline knows one side only."""
    return adapter.shape[-1] == adapter.shape[-2]


def has_lcm_boundary(student: ConsistencyStudent) -> bool:
    """Return whether LCMScheduler's two factors are the student's, but for the first fiftieth of the table.

    So near to the image none of fifty steps or fewer is asked. What noise is left in the student's answers must be
    nothing beside what the scheduler adds.
    """
    length, last = table_length(student.schedule, student.t_max), student.schedule.num_timesteps - 1
    steps = torch.arange(max(1, length // COMPARED), length, dtype=torch.float64)
    ours, theirs = (
        boundary.factors((steps / last).float(), t_min, student.schedule)
        for boundary, t_min in ((student.boundary, student.t_min), (STOCK_LCM, 0.0))
    )
    near = all(bool(((a - b).abs() < NEAR).all()) for a, b in zip(ours, theirs, strict=True))
    return near and student.boundary.left(student.t_min, student.schedule) < NEAR


def has_karras_boundary(student: ConsistencyStudent) -> bool:
    """Return whether CMStochasticIterativeScheduler computes the student's answers, at its times, from its network."""
    schedule, prediction, boundary = student.schedule, student.reading.prediction, student.boundary
    return (
        isinstance(schedule, EDM)
        and schedule.rho is not None
        and isinstance(prediction, Preconditioned)
        and boundary == KarrasSkip(prediction.sigma_data)
        and student.points is not None
        and isinstance(student.limit, NoLimit | Clip)
    )


def karras_steps(student: ConsistencyStudent) -> Any:
    """Return CMStochasticIterativeScheduler with the student's noise levels, preconditioning and limit."""
    import diffusers

    schedule, ends = student.schedule, torch.tensor([student.t_min, student.t_max])
    assert isinstance(schedule, EDM) and isinstance(student.reading.prediction, Preconditioned)
    low, high = schedule.alpha_sigma(ends)[1].tolist()
    return diffusers.CMStochasticIterativeScheduler(
        num_train_timesteps=student.points,
        sigma_min=low,
        sigma_max=high,
        sigma_data=student.reading.prediction.sigma_data,
        rho=schedule.rho,
        clip_denoised=isinstance(student.limit, Clip),
    )


def _scheduler(student: Student, kind: str, own: dict[str, Any]) -> Any:
    """Return a scheduler of this class on the teacher's table of betas, which ends at the student's t_max."""
    import diffusers

    assert student.adapter is not None, "several_steps has seen to it"
    config = student.adapter.parts.scheduler
    words = read_config(config, "the teacher's scheduler")
    assert isinstance(words, BetaConfig), "its schedule is a table of betas"
    length = table_length(student.schedule, student.t_max)
    table: dict[str, Any] = {
        name: getattr(words, name) for name in ("beta_start", "beta_end", "beta_schedule", "rescale_betas_zero_snr")
    }
    if length < student.schedule.num_timesteps or words.trained_betas or words.beta_schedule not in NAMED:
        table = {"trained_betas": betas_of(words, "the teacher's scheduler")[:length]}
    prediction = words.prediction_type.removeprefix("original_")
    # A Stable Diffusion pipeline insists on steps_offset 1, which trailing timesteps ignore.
    fields = {"timestep_spacing": "trailing", "steps_offset": 1, "set_alpha_to_one": True}
    limit = student.limit.scheduler_fields()
    with quietly():
        return getattr(diffusers, kind)(
            num_train_timesteps=length, prediction_type=prediction, **table, **fields, **limit, **own
        )
