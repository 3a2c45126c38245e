"""Growing a student's network from a teacher's, and folding it back.

A grown network is the teacher's network, initialised from its weights, plus an embedding of the *target time* whose
last layer is zero. So the student starts exactly at its teacher. At sampling time both its own time (t_max) and the
target time (t_min) are constants, so ``fold`` moves them into biases and returns the teacher's own class.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.students.shift import Shift
from bootdiff.teachers import NetworkTeacher, PipelineTeacher, Teacher


class GrownNetwork(nn.Module, ABC):
    """A denoising network with an additional input for the target time."""

    @abstractmethod
    def forward(self, x_T: Tensor, timestep: Tensor, target: Tensor | None, condition: Condition) -> Tensor:
        """Return the network's raw output (b, ...) for its own time ``timestep`` and the target time ``target``.

        Both times are (b,), given as timesteps; the target is None for a network without an input for one.
        """

    @abstractmethod
    def fold(self, timestep: float, target: float | None, weight: float | None = None) -> nn.Module:
        """Return a network of the teacher's class and config that answers for these two constant times.

        Args:
            timestep, target: its own time, t_max, and the target time, t_min, both as timesteps.
            weight: the guidance weight to fold, where the network takes one that its class has no slot for.
        """

    def settled(self, target: float | None, weight: float | None = None) -> nn.Module:
        """Return a network of the teacher's class that answers for one target time and goes on being told its own.

        Args:
            target: the target time as a timestep; None for a network without an input for one.
            weight: the guidance weight, as ``fold`` takes it.

        Raises:
            BootdiffError: if this growth cannot say it.
        """
        raise BootdiffError(
            f"a {type(self).__name__} does not say how its target time is settled, so no student of another kind can "
            "begin with it; give it a method settled()."
        )


#: the growth of each class of plain modules; the first class in a module's method resolution order that is here wins
_GROWTHS: dict[type[nn.Module], Callable[[nn.Module], GrownNetwork]] = {}


def register_growth(kind: type[nn.Module], growth: Callable[[nn.Module], GrownNetwork]) -> None:
    """Make ``grow`` use ``growth`` for plain modules of the class ``kind``."""
    _GROWTHS[kind] = growth


def network_for(
    teacher: Teacher, times: tuple[float, float], guided: bool, timed: bool, moving: bool = False
) -> GrownNetwork:
    """Return a student's network: one grown from the teacher's, or a plain one for an analytic teacher.

    Args:
        times: the lowest and the highest time that a plain one is told.
        guided: whether the network also takes a guidance weight.
        timed: whether the network has an input for a target time.
        moving: whether its own time changes as well.
    """
    from bootdiff.students.plain import PlainNetwork

    denoiser = teacher.denoiser
    if isinstance(denoiser, NetworkTeacher):
        return grow(denoiser, guided, timed)
    low, high = denoiser.schedule.timestep(torch.tensor(times)).tolist()
    return PlainNetwork(denoiser.shape, (low, high), both=timed and moving)


def grow(teacher: NetworkTeacher, guided: bool = False, timed: bool = True) -> GrownNetwork:
    """Return a student's network, equal to the teacher's at every target time; the teacher's own is left alone.

    Args:
        guided: whether the network also takes a guidance weight, at first without effect.
        timed: whether the network has an input for a target time.

    Raises:
        BootdiffError: if a plain module cannot be grown.
    """
    if isinstance(teacher, PipelineTeacher):
        from bootdiff.students.pipeline import GrownPipelineNetwork

        return GrownPipelineNetwork.from_teacher(teacher, guided, timed).eval()
    if not timed:
        return SameNetwork(teacher).eval()
    for kind in type(teacher.network).__mro__:
        if kind in _GROWTHS:
            return _GROWTHS[kind](teacher.network).eval()
    return ShiftedNetwork(teacher.network).eval()


def sinusoid(time: Tensor, dim: int) -> Tensor:
    """Return the sinusoidal embedding (b, dim) of times (b,), which are given as timesteps."""
    from diffusers.models.embeddings import get_timestep_embedding

    return get_timestep_embedding(time, dim, flip_sin_to_cos=True, downscale_freq_shift=0)


class SameNetwork(GrownNetwork):
    """A copy of a plain module, called as its teacher calls it: it has no input for a target time."""

    def __init__(self, teacher: NetworkTeacher) -> None:
        super().__init__()
        self.network = copy.deepcopy(teacher.network).float().requires_grad_(True)

    def forward(self, x_T: Tensor, timestep: Tensor, target: Tensor | None, condition: Condition) -> Tensor:
        """Return the module's output (b, ...)."""
        out = self.network(x_T, timestep, **condition)
        return out if isinstance(out, Tensor) else out.sample

    def fold(self, timestep: float, target: float | None, weight: float | None = None) -> nn.Module:
        """Return a copy of the module; it is still called with its own time, t_max."""
        return copy.deepcopy(self.network)

    def settled(self, target: float | None, weight: float | None = None) -> nn.Module:
        """Return a copy of the module."""
        return copy.deepcopy(self.network)


class ShiftedNetwork(GrownNetwork):
    """A plain module ``network(x_t, timestep)``, grown by a shift of each linear and convolution layer's output.

    The shift depends on the target time. A constant shift of such a layer is a bias, so it folds into the module's own
    weights.

    Raises:
        BootdiffError: if no linear or convolution layer of the module has a bias to fold into.
    """

    LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    DIM = 128

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).float().requires_grad_(True)  # whatever the teacher runs in
        layers = [m for m in self.network.modules() if isinstance(m, self.LAYERS) and m.bias is not None]
        if not layers:
            raise BootdiffError(
                f"a student cannot be grown from {type(network).__name__}: it has no linear or convolution layer with "
                "a bias for the target time to enter by; register a growth for it (bootdiff.register_growth)."
            )
        self.embedding = nn.Sequential(nn.Linear(self.DIM, self.DIM), nn.SiLU())
        shifts = [nn.Linear(self.DIM, layer.weight.shape[0]) for layer in layers]
        for shift in shifts:
            nn.init.zeros_(shift.weight)
            nn.init.zeros_(shift.bias)
        self.shifts = nn.ModuleList(shifts)
        self._added = [Shift(channels_last=isinstance(layer, nn.Linear)) for layer in layers]
        self._hooks = [layer.register_forward_hook(add) for layer, add in zip(layers, self._added, strict=True)]

    def forward(self, x_T: Tensor, timestep: Tensor, target: Tensor | None, condition: Condition) -> Tensor:
        """Return the module's output (b, ...) with every layer shifted for the target time."""
        hidden = self.embedding(sinusoid(timestep if target is None else target, self.DIM))
        with ExitStack() as call:
            for add, shift in zip(self._added, self.shifts, strict=True):
                call.enter_context(add.by(shift(hidden)))
            out = self.network(x_T, timestep, **condition)
        return out if isinstance(out, Tensor) else out.sample

    @torch.no_grad()
    def fold(self, timestep: float, target: float | None, weight: float | None = None) -> nn.Module:
        """Return the module with its biases shifted for ``target``; it is still called with its own time, t_max."""
        folded = copy.deepcopy(self)
        time = torch.tensor([float(timestep if target is None else target)]).to(next(folded.parameters()).device)
        hidden = folded.embedding(sinusoid(time, self.DIM))
        for layer, shift in zip(folded._layers(), folded.shifts, strict=True):
            layer.bias += shift(hidden)[0]
        for hook in folded._hooks:
            hook.remove()
        return folded.network

    def settled(self, target: float | None, weight: float | None = None) -> nn.Module:
        """Return the module with its biases shifted for ``target``; it is called with any time of its own."""
        if target is None:
            raise BootdiffError("a shifted module without a target time is shifted for its own, which is not settled.")
        return self.fold(target, target)

    def _layers(self) -> list[nn.Module]:
        return [m for m in self.network.modules() if isinstance(m, self.LAYERS) and m.bias is not None]
