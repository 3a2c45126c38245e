"""The schedulers of diffusers that fit each kind of teacher, and how their timesteps are spaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bootdiff.schedules import EDM, RectifiedFlow, VariancePreserving
from bootdiff.teachers import Teacher


@dataclass(frozen=True)
class Kind:
    """One of diffusers' schedulers, with its settings.

    Args:
        name: what its rows are called in tables.
        scheduler: the name of its class in diffusers.
        fields: the settings that it is given besides the betas.
        spacings: the ways to space its timesteps.
        random: whether it draws noise at every step.
    """

    name: str
    scheduler: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    spacings: Sequence[str] = ("trailing", "leading")
    random: bool = False


#: the spacings of a sampler that can step between any two noise levels
ALL = ("trailing", "leading", "karras")
#: the samplers for teachers with a table of betas
VARIANCE_PRESERVING = {
    "ddpm": Kind("DDPM", "DDPMScheduler", {"variance_type": "fixed_small"}, random=True),
    "ddim": Kind("DDIM", "DDIMScheduler", {"set_alpha_to_one": True}),
    "pndm": Kind("PNDM", "PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": True}),
    "dpm-solver": Kind(
        "DPM-Solver-2", "DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}
    ),
    "dpm-solver++": Kind("DPM-Solver++", "DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}, ALL),
    "dpm-solver++3": Kind(
        "DPM-Solver++ (3)", "DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 3}, ALL
    ),
    "deis": Kind("DEIS", "DEISMultistepScheduler", spacings=ALL),
    "unipc": Kind("UniPC", "UniPCMultistepScheduler", spacings=ALL),
    "heun": Kind("Heun", "HeunDiscreteScheduler"),
    "edm": Kind("EDM", "HeunDiscreteScheduler", spacings=("karras",)),
}
#: the samplers for EDM's own teachers
PRECONDITIONED = {
    "euler": Kind("Euler", "EDMEulerScheduler", spacings=("own",)),
    "dpm-solver++": Kind("DPM-Solver++", "EDMDPMSolverMultistepScheduler", spacings=("own",)),
    "dpm-solver++3": Kind("DPM-Solver++ (3)", "EDMDPMSolverMultistepScheduler", {"solver_order": 3}, spacings=("own",)),
}
#: the samplers for rectified flow
FLOW = {
    "euler": Kind("Euler", "FlowMatchEulerDiscreteScheduler", spacings=("own",)),
    "heun": Kind("Heun", "FlowMatchHeunDiscreteScheduler", spacings=("own",)),
}
#: what the samplers are called in tables; for a flow or EDM's schedule, Euler's steps equal DDIM's
NAMES = {name: kind.name for kinds in (VARIANCE_PRESERVING, PRECONDITIONED, FLOW) for name, kind in kinds.items()}
NAMES["path"] = "Heun's exact path"


def kinds_for(teacher: Teacher) -> Mapping[str, Kind]:
    """Return the samplers that fit a teacher's schedule, by name; none for a schedule that diffusers does not have."""
    schedule = teacher.schedule
    if isinstance(schedule, VariancePreserving):
        return VARIANCE_PRESERVING
    if isinstance(schedule, RectifiedFlow):
        return FLOW
    if isinstance(schedule, EDM):
        return PRECONDITIONED
    return {}
