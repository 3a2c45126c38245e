"""Reading a diffusers scheduler config: its schedule and its prediction type. The scheduler's word is taken."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bootdiff.errors import BootdiffError
from bootdiff.schedules import BetaTable, Schedule
from bootdiff.teachers.prediction import PREDICTIONS, Prediction, prediction_named

#: schedulers whose config is a table of betas and a prediction type
BETA_SCHEDULERS = (
    "DDPMScheduler",
    "DDIMScheduler",
    "PNDMScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
)


def read_scheduler(config: Mapping[str, Any], where: Path | str) -> tuple[Schedule, Prediction]:
    """The schedule and prediction type that a scheduler's config describes.

    Raises:
        BootdiffError: for a scheduler class or a field that cannot be read, by its name.
    """
    kind = config.get("_class_name", "?")
    if config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction":
        raise BootdiffError(f"{where} describes a flow model ({kind}); flow teachers are not supported yet.")
    if kind not in BETA_SCHEDULERS:
        raise BootdiffError(f"{where} is a {kind}, which cannot be read; supported: {', '.join(BETA_SCHEDULERS)}.")
    if config.get("prediction_type", "epsilon") not in PREDICTIONS:
        raise BootdiffError(
            f"{where}: prediction_type '{config['prediction_type']}' cannot be read; expected one of "
            f"{', '.join(sorted(PREDICTIONS))}."
        )
    return BetaTable(betas_of(config, where)), prediction_named(config.get("prediction_type", "epsilon"))


def betas_of(config: Mapping[str, Any], where: Path | str) -> list[float]:
    """The beta table that diffusers itself builds from the config (N values in float32)."""
    from diffusers import DDPMScheduler

    names = (
        "num_train_timesteps",
        "beta_start",
        "beta_end",
        "beta_schedule",
        "trained_betas",
        "rescale_betas_zero_snr",
    )
    fields = {name: config[name] for name in names if name in config}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            betas = DDPMScheduler(**fields).betas
    except (NotImplementedError, TypeError, ValueError, RuntimeError) as error:
        line = str(error).splitlines()[0]
        raise BootdiffError(f"{where}: its betas cannot be built from {fields} ({line}).") from error
    return betas.tolist()


def spaced_timesteps(config: Mapping[str, Any], steps: int) -> list[int] | None:
    """The ``steps`` timesteps, falling, that a DDIM sampler with this scheduler's own spacing visits.

    None if the table is shorter than that.
    """
    from diffusers import DDIMScheduler

    # The betas are left out: DDIMScheduler does not know every schedule, and spacing does not depend on them.
    names = ("num_train_timesteps", "timestep_spacing", "steps_offset")
    scheduler = DDIMScheduler(**{name: config[name] for name in names if name in config})
    if steps > scheduler.config.num_train_timesteps:
        return None
    scheduler.set_timesteps(steps)
    return [int(t) for t in scheduler.timesteps]
