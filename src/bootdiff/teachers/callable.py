"""Reading a plain ``nn.Module`` as a teacher."""

from __future__ import annotations

import torch
from torch import nn

from bootdiff.core.errors import BootdiffError, shown
from bootdiff.schedules import Schedule
from bootdiff.teachers.base import NetworkTeacher
from bootdiff.teachers.limits import Limit
from bootdiff.teachers.prediction import Prediction, prediction_named


class CallableTeacher(NetworkTeacher):
    """A teacher made of any module ``network(x_t, timestep) -> out``, with its schedule and prediction type.

    ``timestep`` is ``t · (N − 1)``, float32 and (b,), where N is ``schedule.num_timesteps`` (a schedule may say
    otherwise: ``EDM`` gives log(sigma) / 4); ``out`` has x_t's shape. A condition's entries are passed by keyword.

    Args:
        network: the module, which is frozen here.
        schedule: the noise schedule, for instance ``Cosine()`` or ``BetaTable(betas)``.
        prediction: ``"sample"``, ``"epsilon"``, ``"v_prediction"``, ``"flow_prediction"``, ``"score"``, ``"edm"``, or
            an object such as ``Preconditioned(sigma_data=1.0)``.
        shape: the shape of one sample, without the batch.
        name: the name that reports call it by; the module's class by default.
        integer_timesteps: whether to round timesteps to the nearest integer, in int64, for a network that looks them up
            in a table.
        limit: how x_0 is clipped or thresholded; not at all where none is given. ``Limited(teacher)`` applies it.

    Raises:
        BootdiffError: for an unknown prediction type, one that does not fit the schedule, or a network that is no
            module.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        prediction: str | Prediction,
        shape: tuple[int, ...],
        name: str | None = None,
        integer_timesteps: bool = False,
        limit: Limit | None = None,
    ) -> None:
        if not isinstance(network, nn.Module):
            raise BootdiffError(f"expected a torch.nn.Module as the teacher's network, got {type(network).__name__}.")
        if not isinstance(schedule, Schedule):
            raise BootdiffError(f"expected a schedule such as bootdiff.Cosine(), got {schedule!r}.")
        sides = list(shape) if isinstance(shape, tuple | list | torch.Size) else [0]
        if not all(type(side) is int and side > 0 for side in sides) or not sides:
            raise BootdiffError(f"expected the shape of one sample such as (3, 32, 32), got {shape!r}.")
        if limit is not None and not hasattr(limit, "scheduler_fields"):
            raise BootdiffError(f"expected a limit such as bootdiff.Clip(), got {shown(limit)}.")
        if not isinstance(prediction, str | Prediction):
            raise BootdiffError(f"expected a prediction such as 'epsilon', got {shown(prediction)}.")
        kind = prediction if isinstance(prediction, Prediction) else prediction_named(prediction)
        if integer_timesteps:
            schedule = schedule.with_integer_timesteps()
        super().__init__(network, schedule, kind, tuple(shape), name or type(network).__name__, limit)
