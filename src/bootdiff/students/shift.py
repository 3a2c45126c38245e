"""Adding a tensor to the outputs of some layers during a call: an argument for which a network's call has no room."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bootdiff.core.errors import BootdiffError


class Shift:
    """A forward hook that adds a tensor to a layer's output during one call, and in that call's thread only.

    So the hook stays where it is, and several threads may call a network at a time, each with a shift of its own. A
    copy of the network, or a network that was pickled, has a hook of its own.

    Args:
        channels_last: whether the channels are the last dimension of the layer's output; otherwise they are the second.
    """

    def __init__(self, channels_last: bool = True) -> None:
        self.channels_last = channels_last
        # Of this very type: torch.compile reads it, and a context variable it does not.
        self._here = threading.local()

    def __reduce__(self) -> tuple[type[Shift], tuple[bool]]:
        return Shift, (self.channels_last,)  # its value belongs to a call, which is not copied

    @property
    def value(self) -> Tensor | None:
        """The tensor that the present call in this thread adds, (b, channels); None outside of a call."""
        return getattr(self._here, "value", None)

    @contextmanager
    def by(self, value: Tensor | None) -> Iterator[None]:
        """Shift this thread's calls of the layer by ``value``, (b, channels), within the ``with`` block."""
        before = self.value
        self._here.value = value
        try:
            yield
        finally:
            self._here.value = before

    def __call__(self, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        value = self.value
        if value is None:
            _check_forward(module)
            return output
        ones = [1] * (output.ndim - 2)
        return output + (
            value.reshape(value.shape[0], *ones, -1) if self.channels_last else value[(..., *[None] * len(ones))]
        )


def _check_forward(module: nn.Module) -> None:
    """Refuse a layer that is computed again in a backward pass, where its shift is no longer known.

    Raises:
        BootdiffError: in such a pass, because the gradient would be wrong.
    """
    if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
        raise BootdiffError(
            f"a {type(module).__name__} of the student's network is computed again in the backward pass by a "
            "checkpointing of the module's own, which loses the target time; switch that off."
        )


class OfCall(Protocol):
    """Something that is known within a call only, such as the shift of its layers."""

    @property
    def value(self) -> Any:
        """What is known of the present call in this thread; nothing outside of one."""
        ...

    def by(self, value: Any) -> AbstractContextManager[None]:
        """Make it known within the ``with`` block."""
        ...


class Checkpointing:
    """A checkpointing function of a diffusers network by which a recomputed block knows of its call what it knew first.

    The backward pass may run in another thread, and after other calls.

    Args:
        function: the checkpointing function that the network was given.
        kept: what the block must know, such as the shift of the embedders inside.
    """

    def __init__(self, function: Callable[..., Any], kept: OfCall) -> None:
        self.function, self.kept = function, [kept]

    def __call__(self, block: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
        if torch.compiler.is_compiling():  # the compiled block is given the shift as an input, both times
            return self.function(block, *inputs, **options)
        values = [one.value for one in self.kept]

        def again(*inputs: Any, **options: Any) -> Any:
            with ExitStack() as call:
                for one, value in zip(self.kept, values, strict=True):
                    call.enter_context(one.by(value))
                return block(*inputs, **options)

        return self.function(again, *inputs, **options)


def keep_when_checkpointed(network: nn.Module, kept: OfCall) -> None:
    """Give a ``Checkpointing`` to every block of a diffusers network that checkpoints, whoever switched that on."""
    for module in network.modules():
        function = getattr(module, "_gradient_checkpointing_func", None)
        if isinstance(function, Checkpointing):
            if all(one is not kept for one in function.kept):
                function.kept.append(kept)
        elif function is not None:
            module._gradient_checkpointing_func = Checkpointing(function, kept)  # type: ignore[assignment]
