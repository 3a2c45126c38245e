"""What a student is grown from, where that is not its teacher as it is: a network of another architecture, or of none.

It is again a teacher: the given one's schedule, prediction and name around another network. So a student of any kind
is grown from it as from its teacher. Source: docs/method.md, "A student of another architecture".
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bootdiff.core.errors import BootdiffError
from bootdiff.core.passes import operations
from bootdiff.system.quiet import quietly
from bootdiff.teachers import NetworkTeacher, PipelineTeacher, Teacher, adapter_of, blank_condition
from bootdiff.teachers.adapters import adapter_for
from bootdiff.teachers.adapters.base import Adapter
from bootdiff.teachers.loading.architecture import LARGER, SMALL, Architecture
from bootdiff.teachers.loading.substituted import Substituted
from bootdiff.teachers.pipeline import with_network


def seedling(teacher: Teacher, architecture: Architecture, seed: int, copies: bool = True) -> PipelineTeacher:
    """Return the teacher with a network of another architecture in the place of its own.

    Args:
        architecture: of the network, whose output is read as the teacher's.
        seed: of the weights that are drawn.
        copies: whether weights that fit are copied from the teacher; otherwise all are drawn.

    Raises:
        BootdiffError: if the network's samples or conditions are not the teacher's, or it is too large.
    """
    adapter, asked = adapter_with(teacher, architecture)
    network = asked.draw(seed)
    if copies:
        copy_fitting(network, teacher.denoiser.network.state_dict())  # type: ignore[union-attr,operator]
    made = PipelineTeacher(adapter, network, teacher.name)
    made.origin, made.limit = teacher.denoiser.origin, teacher.limit
    made.architecture = f"{asked.kind} of {sum(p.numel() for p in network.parameters()):,} parameters"
    return made


def adapter_with(teacher: Teacher, architecture: Architecture) -> tuple[Adapter, Architecture]:
    """Return the adapter of the stock pipeline that holds a student of this architecture, and its complete config.

    Raises:
        BootdiffError: if the network's samples or conditions are not the teacher's, or it is too large.
    """
    own = adapter_of(teacher)
    if own is None:
        raise BootdiffError(
            f"student: {teacher.name} is of no pipeline, so no stock pipeline says how a {architecture.kind} is "
            "called; leave student out."
        )
    pipeline, part, pixels = _pipeline(own, architecture, teacher)
    # The fields are checked by the adapter before anything is built of them, and again when they are complete.
    for step in ("said", "complete"):
        parts = Substituted(own.parts, pipeline, part, architecture, pixels)
        adapter = adapter_for(pipeline, f"{architecture.folder} is the network of a {pipeline}")(parts)
        _check_fits(adapter, own, teacher, architecture)
        if step == "said":
            count = sum(p.numel() for p in teacher.denoiser.parameters())
            architecture = architecture.complete(max(SMALL, LARGER * count))
    return adapter, architecture


def _pipeline(own: Adapter, architecture: Architecture, teacher: Teacher) -> tuple[str, str, int | None]:
    """Return the class of the student's pipeline, the part that is its network, and the channels of its pixels.

    The channels are None unless the pipeline must be given an autoencoder that changes nothing.
    """
    if architecture.kind == own.network_class:
        return own.parts.pipeline_class, own.network_part, None
    pixels = own.network_class == "UNet2DModel"
    if pixels and architecture.kind == "DiTTransformer2DModel":
        return "DiTPipeline", "transformer", own.shape[0]
    others = f" or a DiTTransformer2DModel ({own.parts.pipeline_class})" if pixels else ""
    raise BootdiffError(
        f"student: {architecture.folder} is a {architecture.kind}, whose stock pipelines cannot hold a student of "
        f"{teacher.name}, which is conditioned on {own.takes}; expected a {own.network_class}{others}."
    )


def _check_fits(adapter: Adapter, own: Adapter, teacher: Teacher, architecture: Architecture) -> None:
    """Refuse a network whose samples or conditions have other shapes than the teacher's."""
    for what, met, needed in (
        ("samples of shape", tuple(adapter.shape), tuple(teacher.shape)),
        ("the condition", adapter.takes, own.takes),
        ("classes:", adapter.classes, own.classes),
        ("a guidance weight:", adapter.guidance, own.guidance),
        ("conditions of shapes", _shapes(adapter), _shapes(own)),
    ):
        if met != needed:
            raise BootdiffError(
                f"student: {architecture.folder / 'config.json'} describes a {architecture.kind} that takes {what} "
                f"{met}, and those of {teacher.name} are {needed}; change the config."
            )


def _shapes(adapter: Adapter) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape[1:]) for name, value in adapter.blank(1).items()}


@torch.no_grad()
def copy_fitting(network: nn.Module, source: Mapping[str, Tensor]) -> list[str]:
    """Copy the tensors of ``source`` that ``network`` has by the same name, and return their names.

    Of a layer with more channels than the network's the first ones are taken. Tensors that are wider than the source's,
    or have another kernel, keep what was drawn.
    """
    copied = []
    for name, value in network.state_dict().items():
        there = source.get(name)
        if there is not None and _fits(value, there):
            value.copy_(there[tuple(slice(size) for size in value.shape)])
            copied.append(name)
    return copied


def _fits(value: Tensor, there: Tensor) -> bool:
    """Return whether a tensor is the beginning of another one, by its channels: the first two dimensions."""
    fewer = all(own <= its for own, its in zip(value.shape, there.shape, strict=False))
    return value.ndim == there.ndim and fewer and value.shape[2:] == there.shape[2:]


def share_of(stem: Teacher, teacher: Teacher) -> float:
    """Return what a pass of the network of ``stem`` costs in passes of the teacher's, by their multiply-adds."""
    own, whole = (operations(_Call(one.denoiser), (), {}) for one in (stem, teacher))
    return own / max(1.0, whole)


class _Call(nn.Module):
    """One answer of a teacher's network, to zeros."""

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self) -> Tensor:
        teacher: Any = self.teacher
        t = teacher.schedule.timestep(torch.full((1,), teacher.t_range[1]))
        return teacher.call(teacher.network, torch.zeros(1, *teacher.shape), t, blank_condition(teacher, 1))


def untaught(teacher: Teacher, seed: int) -> Teacher:
    """Return the teacher with the weights of its network drawn anew, so that nothing that it has learned is left.

    A teacher without a network is returned as it is; its student's network is drawn anyway.

    Raises:
        BootdiffError: if the network is a module of somebody's own whose weights cannot be drawn.
    """
    denoiser = teacher.denoiser
    if not isinstance(denoiser, NetworkTeacher):
        return teacher
    drawn = _drawn_stock(denoiser, seed) if isinstance(denoiser, PipelineTeacher) else _drawn(denoiser, seed)
    return with_network(teacher, drawn)


def _drawn_stock(denoiser: PipelineTeacher, seed: int) -> nn.Module:
    """Return a network of a pipeline's class and config with new weights, in the teacher's precision."""
    own: Any = denoiser.network
    with quietly():
        return Architecture.of(own).draw(seed).to(own.dtype)


def _drawn(denoiser: NetworkTeacher, seed: int) -> nn.Module:
    """Return a plain module with new weights, by the ``reset_parameters`` of all its layers."""
    network = copy.deepcopy(denoiser.network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, module in network.named_modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            elif next(module.parameters(recurse=False), None) is not None:
                raise BootdiffError(
                    f"the weights of {denoiser.name} cannot be drawn anew: {name or 'its network'}, a "
                    f"{type(module).__name__}, has no reset_parameters(); give it one, or set start_from=teacher."
                )
    return network
