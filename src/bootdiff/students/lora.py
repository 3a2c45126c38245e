"""Low-rank updates (Hu et al., arXiv 2106.09685) around a network that somebody else is using unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.students.growth import GrownNetwork
from bootdiff.teachers import NetworkTeacher


class LowRank(GrownNetwork):
    """The teacher's own network, with a low-rank update of every linear and convolution layer while it is called here.

    The teacher's weights are neither copied nor kept among this module's: only the updates are trained and saved. It
    begins exactly at the teacher.

    Args:
        teacher: the teacher whose network is shared.
        rank: the rank of the updates.

    Raises:
        BootdiffError: if the network has no linear or convolution layer.
    """

    def __init__(self, teacher: NetworkTeacher, rank: int) -> None:
        super().__init__()
        self._teacher = [teacher]  # in a list, so that its weights are not taken for this module's
        updates = [_update(layer, rank) for layer in self._layers()]
        if not updates:
            raise BootdiffError(
                f"fake_rank: {type(teacher.network).__name__} has no linear or convolution layer to update; "
                "leave fake_rank out."
            )
        self.updates = nn.ModuleList(updates)

    def forward(self, x_T: Tensor, timestep: Tensor, target: Tensor | None, condition: Condition) -> Tensor:
        """Return the output (b, ...) of the teacher's network with the updates in place; the target time is ignored."""
        teacher = self._teacher[0]
        with self._updated():
            return teacher.call(teacher.network, x_T, timestep, condition)

    def fold(self, timestep: float, target: float | None, weight: float | None = None) -> nn.Module:
        """Refuse to fold, because this is no student's network."""
        raise NotImplementedError("a fake denoiser is not exported")

    @contextmanager
    def _updated(self) -> Iterator[None]:
        pairs = zip(self._layers(), self.updates, strict=True)
        hooks = [layer.register_forward_hook(_adder(update)) for layer, update in pairs]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _layers(self) -> list[nn.Module]:
        kinds = (nn.Linear, nn.Conv2d)
        network = self._teacher[0].network
        return [m for m in network.modules() if isinstance(m, kinds) and getattr(m, "groups", 1) == 1]


def _update(layer: nn.Module, rank: int) -> nn.Sequential:
    down: nn.Module
    up: nn.Module
    if isinstance(layer, nn.Conv2d):
        shape: dict[str, Any] = {
            name: getattr(layer, name) for name in ("kernel_size", "stride", "padding", "dilation")
        }
        down = nn.Conv2d(layer.in_channels, rank, bias=False, **shape)
        up = nn.Conv2d(rank, layer.out_channels, 1, bias=False)
    else:
        assert isinstance(layer, nn.Linear)
        down = nn.Linear(layer.in_features, rank, bias=False)
        up = nn.Linear(rank, layer.out_features, bias=False)
    nn.init.zeros_(up.weight)
    return nn.Sequential(down, up)


def _adder(update: nn.Module) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + update(inputs[0].to(torch.float32)).to(output.dtype)

    return add
