"""Reading a diffusers pipeline's denoising network as a teacher."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.teachers.adapters.base import Adapter
from bootdiff.teachers.base import NetworkTeacher, Teacher
from bootdiff.teachers.limits import limit_from
from bootdiff.teachers.loading.scheduler import FLOW_SCHEDULERS, read_config
from bootdiff.teachers.prediction import FlowVelocity


class PipelineTeacher(NetworkTeacher):
    """A teacher of what an adapter reads, with the schedule, prediction type and limit of its scheduler's config.

    Args:
        adapter: the adapter of the pipeline's kind.
        network: the denoising network, which is frozen here.
        name: the name that reports call it by.

    Raises:
        BootdiffError: if the scheduler cannot be read or does not fit the network.
    """

    def __init__(self, adapter: Adapter, network: nn.Module, name: str) -> None:
        self.scheduler_config = adapter.parts.scheduler
        where = adapter.parts.where("scheduler")
        words = read_config(self.scheduler_config, where)
        adapter.check(words)
        if (self.scheduler_config["_class_name"] in FLOW_SCHEDULERS) != adapter.flow:
            expected = "that of a flow model" if adapter.flow else "one with betas or EDM's"
            raise BootdiffError(
                f"{where} is a {self.scheduler_config['_class_name']}, which a {adapter.parts.pipeline_class} cannot "
                f"be exported with; expected {expected}."
            )
        schedule, prediction = words.read(where, adapter.tokens)
        limit = limit_from(words.model_dump())
        super().__init__(network, adapter.schedule(schedule), prediction, adapter.shape, name, limit)
        self.adapter: Adapter = adapter

    def call(self, network: nn.Module, x_t: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run a network as the adapter says and return its prediction, (b, *shape)."""
        return self.adapter.call(network, x_t, timestep, condition)

    @cached_property
    def t_range(self) -> tuple[float, float]:
        """The range (t_min, t_max) where the user names none; t_max is 1 for a flow model.

        The path of a flow model can start at pure noise, because its x_0 is not divided by alpha.
        """
        low, high = super().t_range
        return low, 1.0 if isinstance(self.prediction, FlowVelocity) else high

    def blank(self, batch: int, device: torch.device | str = "cpu") -> Condition:
        """Return a condition of zeros in this teacher's shapes, with its usual guidance weight where it takes one."""
        blank = self.adapter.blank(batch)
        usual = self.adapter.embedded_weight
        if usual is not None:
            blank = blank.add(guidance=torch.full((batch,), usual))
        return blank.to(device)


def adapter_of(teacher: Teacher) -> Adapter | None:
    """Return the adapter of a teacher that was read from a pipeline, also within wrappers; None for other teachers."""
    return teacher.denoiser.adapter


def with_network(teacher: Teacher, network: nn.Module) -> NetworkTeacher:
    """Return a teacher of a network with another one of its class in its place, frozen; the teacher is left alone."""
    denoiser: Any = teacher.denoiser
    made = copy.copy(denoiser)
    made._modules = dict(denoiser._modules)
    made.network, made.limit = network.requires_grad_(False).eval(), teacher.limit
    return cast("NetworkTeacher", made)


def blank_condition(teacher: Teacher, batch: int, device: torch.device | str = "cpu") -> Condition:
    """Return a condition of zeros with which a teacher can be tried; the empty one for a teacher of no pipeline."""
    denoiser: Any = teacher.denoiser
    return denoiser.blank(batch, device) if isinstance(denoiser, PipelineTeacher) else Condition()
