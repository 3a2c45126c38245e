"""The stock schedulers with which a student is called several times, where they compute what our samplers do."""

from __future__ import annotations

from typing import Any

import torch

from bootdiff.samplers.few_step import table_length
from bootdiff.schedules import BetaTable
from bootdiff.students import Student
from bootdiff.students.consistency import ConsistencyStudent
from bootdiff.students.denoising import DenoisingStudent
from bootdiff.system.quiet import quietly
from bootdiff.teachers.loading.scheduler import BetaConfig, betas_of, read_config

#: the factor that LCMScheduler gives a timestep, and its sigma_data, which is no setting
LCM_SCALING, LCM_SIGMA = 10.0, 0.5
#: the number of steps up to which a boundary is compared
COMPARED = 50
#: how far a boundary may be from the scheduler's
NEAR = 1e-4
#: the beta schedules that DDIMScheduler and LCMScheduler know by name
NAMED = ("linear", "scaled_linear", "squaredcos_cap_v2")


def several_steps(student: Student) -> Any:
    """Return the stock scheduler with which the student's own network, told its time, takes several steps.

    It is DDIMScheduler for a denoising student and LCMScheduler for a consistency student with that one's boundary,
    both on the teacher's table of betas up to t_max. It is None where there is none: a jump student is told two times;
    EDM's and flow schedulers end their steps elsewhere; CMStochasticIterativeScheduler tells its network another time,
    and holds another boundary.
    """
    adapter, schedule = student.adapter, student.schedule
    if adapter is None or not adapter.takes_steps or not isinstance(schedule, BetaTable):
        return None
    if isinstance(student, DenoisingStudent):
        return _scheduler(student, "DDIMScheduler", {})
    if isinstance(student, ConsistencyStudent) and has_lcm_boundary(student):
        length = table_length(schedule, student.t_max)
        return _scheduler(student, "LCMScheduler", {"original_inference_steps": length})
    return None


def has_lcm_boundary(student: ConsistencyStudent) -> bool:
    """Return whether LCMScheduler's two factors are the student's, but for the first fiftieth of the table.

    So near to the image none of fifty steps or fewer is asked. The factors are ``skip = s² / (m² + s²)`` and
    ``out = m / sqrt(m² + s²)`` with m = 10 timesteps and s = 0.5. What noise is
    left in the student's answers must be nothing beside what the scheduler adds.
    """
    length, last = table_length(student.schedule, student.t_max), student.schedule.num_timesteps - 1
    steps = torch.arange(max(1, length // COMPARED), length, dtype=torch.float64)
    skip, out = student.boundary.factors((steps / last).float(), student.t_min, student.schedule)
    m = LCM_SCALING * steps
    theirs = LCM_SIGMA**2 / (m**2 + LCM_SIGMA**2), m / (m**2 + LCM_SIGMA**2).sqrt()
    near = all(bool(((a - b).abs() < NEAR).all()) for a, b in zip((skip, out), theirs, strict=True))
    return near and student.boundary.left(student.t_min, student.schedule) < NEAR


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
