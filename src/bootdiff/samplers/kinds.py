"""Which of diffusers' schedulers sample which teachers, and how their timesteps are spaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bootdiff.schedules import EDM, RectifiedFlow, VariancePreserving
from bootdiff.teachers import Teacher


@dataclass(frozen=True)
class Kind:
    """One of diffusers' schedulers.

    Args:
        name: what its rows are called.
        scheduler: the class.
        fields: what it is told beside the betas.
        spacings: of its timesteps.
        random: whether it draws noise at every step.
    """

    name: str
    scheduler: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    spacings: Sequence[str] = ("trailing", "leading")
    random: bool = False


#: spacings of a sampler that steps between any two noise levels
ALL = ("trailing", "leading", "karras")
#: for teachers with a table of betas
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
#: for EDM's own teachers
PRECONDITIONED = {
    "euler": Kind("Euler", "EDMEulerScheduler", spacings=("own",)),
    "dpm-solver++": Kind("DPM-Solver++", "EDMDPMSolverMultistepScheduler", spacings=("own",)),
    "dpm-solver++3": Kind("DPM-Solver++ (3)", "EDMDPMSolverMultistepScheduler", {"solver_order": 3}, spacings=("own",)),
}
#: for rectified flow
FLOW = {
    "euler": Kind("Euler", "FlowMatchEulerDiscreteScheduler", spacings=("own",)),
    "heun": Kind("Heun", "FlowMatchHeunDiscreteScheduler", spacings=("own",)),
}
#: what the samplers are called; Euler's steps of a flow or of EDM's schedule are DDIM's
NAMES = {name: kind.name for kinds in (VARIANCE_PRESERVING, PRECONDITIONED, FLOW) for name, kind in kinds.items()}
NAMES["path"] = "Heun's exact path"


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
