"""A plain ``nn.Module`` as a teacher."""

from __future__ import annotations

from torch import nn

from bootdiff.errors import BootdiffError
from bootdiff.schedules import Schedule
from bootdiff.teachers.base import NetworkTeacher
from bootdiff.teachers.prediction import prediction_named


class CallableTeacher(NetworkTeacher):
    """Any module ``network(x_t, timestep) -> out`` with its schedule and prediction type.

    ``timestep`` is ``t · (N − 1)``, float32 and (b,), where N is ``schedule.num_timesteps``; ``out`` has x_t's shape.
    A condition's entries are passed by keyword.

    Args:
        network: the module; frozen here.
        schedule: for instance ``Cosine()`` or ``BetaTable(betas)``.
        prediction: ``"sample"``, ``"epsilon"``, ``"v_prediction"`` or ``"flow_prediction"``.
        shape: of one sample, without the batch.
        name: for reports.

    Raises:
        BootdiffError: for an unknown prediction type or a network that is no module.
    """

    def __init__(
        self, network: nn.Module, schedule: Schedule, prediction: str, shape: tuple[int, ...], name: str | None = None
    ) -> None:
        if not isinstance(network, nn.Module):
            raise BootdiffError(f"expected a torch.nn.Module as the teacher's network, got {type(network).__name__}.")
        name = name or type(network).__name__
        super().__init__(network, schedule, prediction_named(prediction), tuple(shape), name)
