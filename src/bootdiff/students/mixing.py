"""Layers that mix the states of a trajectory over time, while a network answers for all of its times at once.

Source: Zheng et al. (2023), "Fast sampling of diffusion models via operator learning", arXiv 2211.13449.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bootdiff.core.errors import BootdiffError
from bootdiff.students.growth import GrownNetwork, ShiftedNetwork
from bootdiff.students.pipeline import GrownPipelineNetwork
from bootdiff.students.plain import PlainNetwork


class PresentTimes(threading.local):
    """How many times the present call of this thread answers for; 0 outside of such a call."""

    value = 0

    def __reduce__(self) -> tuple[type[PresentTimes], tuple[()]]:
        return PresentTimes, ()  # a count belongs to a call, which is not copied

    @contextmanager
    def by(self, value: int) -> Iterator[None]:
        """Let the calls of this thread within the ``with`` block answer for ``value`` times."""
        before, self.value = self.value, value
        try:
            yield
        finally:
            self.value = before


class TemporalMixing(nn.Module):
    """A temporal Fourier layer, placed behind a layer of a network as its forward hook: it begins without effect.

    In a call for M times the layer's output, (M · b, channels, …), is turned into frequencies along time, its channels
    are mixed by a matrix of each frequency, and the result is turned back and added.

    Args:
        channels: of the layer's output.
        times: M.
        channels_last: whether the channels are the last dimension; otherwise they are the second.
        here: what says whether the present call is one for M times.
    """

    def __init__(self, channels: int, times: int, channels_last: bool, here: PresentTimes) -> None:
        super().__init__()
        modes = times // 2 + 1
        self.channels_last, self.here = channels_last, here
        self.weight = nn.Parameter(torch.zeros(modes, channels, channels, 2))

    def forward(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        """Return the layer's output, with its times mixed in a call for several."""
        count = self.here.value
        if not count:
            return output
        x = output.reshape(count, -1, *output.shape[1:]).float()
        x = x if self.channels_last else x.movedim(2, -1)
        frequencies = torch.fft.rfft(x, dim=0)
        mixed = torch.einsum("m...c,mcd->m...d", frequencies, torch.view_as_complex(self.weight))
        back = torch.fft.irfft(mixed, n=count, dim=0)
        back = back if self.channels_last else back.movedim(-1, 2)
        return output + back.reshape(output.shape).to(output.dtype)


def add_mixing(network: GrownNetwork, times: int) -> PresentTimes:
    """Place a mixing behind the blocks of a grown network, as its ``mixing``, and return what counts a call's times.

    Raises:
        BootdiffError: if the network has no blocks that it is known of what they give.
    """
    here = PresentTimes()
    layers = list(_places(network))
    if not layers:
        raise BootdiffError(
            f"a trajectory student cannot be grown from {type(network).__name__}: it is not known which of its layers "
            "give one tensor; teachers that are U-Nets, DiTs or plain modules have such layers."
        )
    mixings = [TemporalMixing(channels, times, last, here) for _, channels, last in layers]
    for hook in getattr(network, "_mixing_hooks", ()):  # those for another number of times
        hook.remove()
    network.mixing = nn.ModuleList(mixings)
    pairs = zip(layers, mixings, strict=True)
    network._mixing_hooks = [layer.register_forward_hook(mixing) for (layer, _, _), mixing in pairs]  # type: ignore
    return here


def _places(network: GrownNetwork) -> Iterator[tuple[nn.Module, int, bool]]:
    """Yield layers that give one tensor, with its channels and whether these are its last dimension."""
    if isinstance(network, PlainNetwork):
        yield from ((block, network.first.out_features, True) for block in network.blocks)
    elif isinstance(network, ShiftedNetwork):
        layers: list[Any] = network._layers()
        yield from ((layer, int(layer.weight.shape[0]), isinstance(layer, nn.Linear)) for layer in layers)
    elif isinstance(network, GrownPipelineNetwork):
        inner: Any = network.network
        if getattr(inner, "mid_block", None) is not None:
            yield from ((block, block.resnets[-1].out_channels, False) for block in (inner.mid_block, *inner.up_blocks))
        else:
            blocks = getattr(inner, "transformer_blocks", ())
            yield from ((b, inner.inner_dim, True) for b in blocks if type(b).__name__ == "BasicTransformerBlock")
