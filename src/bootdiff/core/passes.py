"""Counting how many samples pass through networks: forward, and backward.

A pass is one sample through a network of the teacher's size. Backward counts two. A call that carries a tangent along
(``forward_mode``) counts twice, both ways. Other networks count by their multiply-adds. Nothing is computed from
settings: hooks see the calls that are really made, within ``counting`` only.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from bootdiff.core.forward_mode import has_tangent

#: a pass counts in steps of this size, so that sums are exact in whatever order they are made
STEP = 2.0**-20


class _Here(threading.local):
    """What the present thread counts: under which name, and the counted networks whose calls it is in."""

    counts = False
    kind: str | None = None

    def __init__(self) -> None:
        self.calls: list[str] = []


_here = _Here()


@contextmanager
def counting(kind: str | None = None) -> Iterator[None]:
    """Count the passes that this thread makes within the ``with`` block; outside of any block none is counted.

    Args:
        kind: the name under which they are counted, such as ``"pairs"``; the networks' own names where none is given.
    """
    before = _here.counts, _here.kind
    _here.counts, _here.kind = True, kind
    try:
        yield
    finally:
        _here.counts, _here.kind = before


class PassCounter:
    """Counts the passes of networks while it is attached to them.

    Of counted networks that call each other only the outermost counts. What a backward pass computes again, as gradient
    checkpointing does, is no pass of its own. Nobody waits for a GPU.

    Args:
        reference: the network of the teacher's size; None where there is none, so that every sample counts one.
    """

    def __init__(self, reference: nn.Module | None = None) -> None:
        self.reference = reference
        #: samples by (name, network), forward and backward; a sample counts two backward
        self.forward: Counter[tuple[str, int]] = Counter()
        self.backward: Counter[tuple[str, int]] = Counter()
        self._names: dict[int, str] = {}
        self._modules: dict[int, tuple[nn.Module, str | None]] = {}
        self._measured: set[int] = set()
        self._operations: dict[int, float] = {}
        self._lock = threading.Lock()

    def add(self, name: str, module: nn.Module, measured: bool = False, method: str | None = None) -> None:
        """Count the calls of a module; one that is known already keeps its name.

        Args:
            name: the name in ``counted``, which several modules may share.
            measured: whether a sample counts by the module's multiply-adds, as a share of the reference's; otherwise it
                counts one.
            method: the method whose calls are counted, where it is not the module's own call.
        """
        key = id(module)
        if key in self._names:
            return
        self._names[key], self._modules[key] = name, (module, method)
        if measured and self.reference is not None:
            self._measured |= {key, id(self.reference)}

    @property
    def names(self) -> list[str]:
        """The names of the networks, in the order in which they were added."""
        return list(dict.fromkeys(self._names.values()))

    def counted(self) -> dict[str, float]:
        """Return the passes that this process has made so far, by name."""
        passes: dict[str, float] = {}
        with self._lock:
            both = self.forward + self.backward
        for (name, key), samples in both.items():
            passes[name] = passes.get(name, 0.0) + samples * self._share(key)
        return passes

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Keep the hooks in place within the ``with`` block."""
        with ExitStack() as stack:
            for key, (module, method) in self._modules.items():
                stack.enter_context(self._hooked(key, module, method))
            yield

    @contextmanager
    def _hooked(self, key: int, module: nn.Module, method: str | None) -> Iterator[None]:
        place = method or ("_compiled_call_impl" if module._compiled_call_impl is not None else None)
        if place is not None:  # a hook would be compiled with the network
            had = place in vars(module)
            before: Any = getattr(module, place)
            setattr(module, place, self._around(key, module, before))
            try:
                yield
            finally:
                if had:
                    setattr(module, place, before)
                else:
                    delattr(module, place)
            return
        # Functions, not objects: whoever copies the network meanwhile does not copy the counter.
        first = module.register_forward_pre_hook(lambda module, inputs: self._begin(key))
        last = module.register_forward_hook(
            lambda module, inputs, words, output: self._end(key, module, inputs, words, output),
            with_kwargs=True,
            always_call=True,
        )
        try:
            yield
        finally:
            first.remove()
            last.remove()

    def _around(self, key: int, module: nn.Module, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*inputs: Any, **words: Any) -> Any:
            self._begin(key)
            output = None
            try:
                output = function(*inputs, **words)
            finally:
                self._end(key, module, inputs, words, output)
            return output

        return counted

    def _begin(self, key: int) -> None:
        if _here.counts:
            _here.calls.append(self._names[key])

    def _end(
        self, key: int, module: nn.Module, inputs: tuple[Any, ...], words: Mapping[str, Any], output: object
    ) -> None:
        if not _here.counts or not _here.calls:
            return
        _here.calls.pop()
        if _here.calls or output is None or torch._C._current_graph_task_id() != -1:
            return  # within another counted network; after an error; computed again in a backward pass
        size = next((len(v) for v in tree_leaves((inputs, words)) if isinstance(v, Tensor) and v.ndim), 0)
        place = _here.kind or self._names[key], key
        counts = 2 * size if any(has_tangent(value) for value in tree_leaves(output)) else size
        with self._lock:
            self.forward[place] += counts
        if key in self._measured and key not in self._operations:
            self._operations[key] = operations(module, inputs, words) / max(1, size)
        if torch.is_grad_enabled():
            self._await_gradient(place, counts, output)

    def _await_gradient(self, place: tuple[str, int], size: int, output: object) -> None:
        """Count a backward pass when a gradient arrives at the output: once, whatever the output was used for."""
        seen = -1

        def arrived(gradient: Tensor) -> None:
            nonlocal seen
            task = torch._C._current_graph_task_id()
            if task != seen:  # of several outputs, the first one whose gradient arrives
                seen = task
                with self._lock:
                    self.backward[place] += 2 * size

        for value in tree_leaves(output):
            if isinstance(value, Tensor) and value.requires_grad:
                value.register_hook(arrived)

    def _share(self, key: int) -> float:
        """Return how many passes a sample through a network counts."""
        if key not in self._measured or self.reference is None or key == id(self.reference):
            return 1.0
        own, whole = self._operations.get(key, 0.0), self._operations.get(id(self.reference), 0.0)
        if not whole:  # the teacher was never asked: its parameters stand for its multiply-adds
            own, whole = _parameters(self._modules[key][0]), _parameters(self.reference)
        return round(own / max(1.0, whole) / STEP) * STEP


def _parameters(module: nn.Module) -> float:
    return float(sum(p.numel() for p in module.parameters()))


@torch.no_grad()
def operations(module: nn.Module, inputs: tuple[Any, ...], words: Mapping[str, Any]) -> float:
    """Return the floating-point operations of a call, two for each multiply-add; nothing is really computed.

    A network that does not run without values is run once more, with the random numbers left as they were.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as fake, FlopCounterMode(display=False) as counter:
            there, named = tree_map_only(Tensor, fake.from_tensor, (inputs, dict(words)))
            module.forward(*there, **named)
    except Exception:  # whatever a network's own code does with values that are none
        with torch.random.fork_rng(), FlopCounterMode(display=False) as counter:
            module.forward(*inputs, **words)
    return float(counter.get_total_flops())
