"""Growing and folding the networks of diffusers pipelines."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.students.growth import GrownNetwork
from bootdiff.students.shift import Shift, keep_when_checkpointed
from bootdiff.teachers.adapters.base import WEIGHT_DIM, Adapter, Clock, weight_embedding
from bootdiff.teachers.pipeline import PipelineTeacher


class GrownPipelineNetwork(GrownNetwork):
    """A pipeline's network whose time embedding is shifted by those of the target time and of a guidance weight.

    The network keeps its class and config. At initialisation both shifts are exactly zero.

    Args:
        network: the network to be trained.
        adapter: the adapter of its pipeline.
        guided: whether a guidance weight is one of its inputs.
        timed: whether the target time is one of its inputs.
    """

    def __init__(self, network: nn.Module, adapter: Adapter, guided: bool = False, timed: bool = True) -> None:
        super().__init__()
        self.network, self.adapter, self.guided = network, adapter, guided
        embedder = adapter.clocks(network)[0].embedder
        self.target = _embedding(embedder.linear_1.in_features, embedder.linear_2.out_features) if timed else None
        needed = guided and not adapter.weight_slot
        self.weight = _embedding(WEIGHT_DIM, embedder.linear_2.out_features) if needed else None
        self.shift = Shift()
        shifted = self.target is not None or self.weight is not None
        layers = [clock.embedder.linear_2 for clock in adapter.clocks(network)] if shifted else []
        self._hooks = [layer.register_forward_hook(self.shift) for layer in layers]

    @classmethod
    def from_teacher(cls, teacher: PipelineTeacher, guided: bool = False, timed: bool = True) -> GrownPipelineNetwork:
        """Return a grown copy of the teacher's network, in float32."""
        return cls(teacher.adapter.trainable(teacher.network, guided), teacher.adapter, guided, timed)

    def forward(self, x_T: Tensor, timestep: Tensor, target: Tensor | None, condition: Condition) -> Tensor:
        """Return the network's output (b, *shape), with its time embedding shifted for the target time."""
        if torch.is_grad_enabled() and self._hooks:
            keep_when_checkpointed(self.network, self.shift)
        with self.shift.by(self._shift(target, condition.get("guidance"))):
            return self.adapter.call(self.network, x_T, timestep, condition)

    @torch.no_grad()
    def fold(self, timestep: float, target: float | None, weight: float | None = None) -> nn.Module:
        """Return the network with both times in the biases of its time embedders; it must then be told timestep 0."""
        folded = copy.deepcopy(self)
        device = next(folded.parameters()).device
        own, zero = (_timestep(folded._clock.proj, v, device) for v in (timestep, 0))
        wanted = None if target is None else _timestep(folded._clock.proj, target, device)
        weights = None if weight is None else torch.tensor([float(weight)], device=device)
        shift = folded._shift(wanted, weights)
        for hook in folded._hooks:
            hook.remove()
        for clock in self.adapter.clocks(folded.network):
            if getattr(clock.embedder, "cond_proj", None) is None:
                _make_constant(clock, own, shift)
            else:
                _move_time(clock, own, zero, shift)
        slot = self.adapter.weight_clock(folded.network)
        if slot is not None and weights is not None and not self.guided:
            _make_constant(slot, 1000 * weights)  # in the network's own units: it multiplies its weight by 1000
        return folded.network.eval()

    @torch.no_grad()
    def settled(self, target: float | None, weight: float | None = None) -> nn.Module:
        """Return the network with a target time and a guidance weight in the biases of its embedders.

        It goes on being told its own time.
        """
        settled = copy.deepcopy(self)
        device = next(settled.parameters()).device
        weights = None if weight is None else torch.tensor([float(weight)], device=device)
        wanted = None if target is None else _timestep(settled._clock.proj, target, device)
        shift = settled._shift(wanted, weights)
        for hook in settled._hooks:
            hook.remove()
        if shift is not None:
            for clock in self.adapter.clocks(settled.network):
                clock.embedder.linear_2.bias += shift[0]
        return settled.network.eval()

    @torch.no_grad()
    def retime(self, network: nn.Module, told: Tensor, meant: Tensor) -> None:
        """Change a network's time embedders so that, told ``told[k]``, they answer as they now do for ``meant[k]``.

        It is the change of their first layer that has the least norm, and it is exact at these times, (K,) timesteps,
        and meaningless between them. Source: docs/method.md, "More than one call".

        Raises:
            BootdiffError: if an embedding has too few features for so many times, is none of sinusoids, or is told a
                guidance weight as well.
        """
        for clock in self.adapter.clocks(network):
            if type(clock.proj).__name__ != "Timesteps":
                raise BootdiffError(f"a {type(clock.proj).__name__} cannot be told other times than its own.")
            if getattr(clock.embedder, "cond_proj", None) is not None:  # its layer reads a weight as well as the time
                raise BootdiffError("a network that is told a guidance weight cannot be told other times.")
            _retime(clock, told, meant)

    def slots(self) -> dict[str, Tensor]:
        """Return the weights of the embeddings beside the pipeline's own network, by name."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("network.")}

    def load_slots(self, slots: Mapping[str, Tensor]) -> None:
        """Load the weights that ``slots`` returned.

        Raises:
            RuntimeError: if their names or shapes are others.
        """
        own = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        self.load_state_dict({**own, **slots})

    @property
    def _clock(self) -> Clock:
        return self.adapter.clocks(self.network)[0]

    def _shift(self, target: Tensor | None, weight: Tensor | None) -> Tensor | None:
        """Return what is added to the time embedding, (b, width); None where nothing is."""
        shift = None
        if self.target is not None and target is not None:
            shift = self.target(self._clock.proj(target).to(self.target.linear_1.weight.dtype))
        if self.weight is not None and weight is not None:
            of_weight = self.weight(weight_embedding(weight, WEIGHT_DIM))
            shift = of_weight if shift is None else shift + of_weight
        return shift


def _embedding(inside: int, outside: int) -> Any:
    from diffusers.models.embeddings import TimestepEmbedding

    embedding: Any = TimestepEmbedding(inside, outside)
    nn.init.zeros_(embedding.linear_2.weight)
    nn.init.zeros_(embedding.linear_2.bias)
    return embedding


def _timestep(proj: nn.Module, value: float, device: torch.device) -> Tensor:
    """Return a timestep (1,) as this projection takes it: int64 for a learned table, float32 for any other."""
    integer = isinstance(proj, nn.Embedding)
    return torch.tensor([value], dtype=torch.long if integer else torch.float32, device=device)


def _make_constant(clock: Clock, value: Tensor, shift: Tensor | None = None) -> None:
    """Change an embedder's last layer so that it always gives its answer to ``value``, plus ``shift``."""
    layer = clock.embedder.linear_2
    answer: list[Tensor] = []
    hook = layer.register_forward_hook(lambda module, inputs, output: answer.append(output))
    clock.embedder(clock.proj(value).to(layer.weight.dtype))
    hook.remove()
    layer.bias.copy_((answer[0] if shift is None else answer[0] + shift)[0])
    layer.weight.zero_()


def _retime(clock: Clock, told: Tensor, meant: Tensor) -> None:
    layer = clock.embedder.linear_1
    device, one = layer.weight.device, torch.ones(len(told), 1, dtype=torch.float64)
    new, old = (torch.cat([clock.proj(t.to(device)).cpu().double(), one], 1) for t in (told.float(), meant.float()))
    weights = torch.cat([layer.weight, layer.bias[:, None]], 1).cpu().double().T
    change = torch.linalg.pinv(new) @ (old - new) @ weights
    wanted, held = old @ weights, (weights + change).float()
    error = (new.float() @ held - wanted).abs().max().item()
    if not error < 1e-4 * max(1.0, wanted.abs().max().item()):
        raise BootdiffError(
            f"the time embedding's {new.shape[1]} features cannot hold {len(told)} times; lower the grid."
        )
    layer.weight.copy_(held[:-1].T)
    layer.bias.copy_(held[-1])


def _move_time(clock: Clock, value: Tensor, told: Tensor, shift: Tensor | None) -> None:
    """Change an embedder so that, where it is told ``told``, it answers for ``value``, plus ``shift``.

    Unlike a constant one it goes on reading a guidance weight.
    """
    first, last = clock.embedder.linear_1, clock.embedder.linear_2
    first.bias += first.weight @ (clock.proj(value) - clock.proj(told)).to(first.weight)[0]
    if shift is not None:
        last.bias += shift[0]
