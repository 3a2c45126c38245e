"""Others' sources, whose batches are held against what a method expects before it learns from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError, first_line, shown
from bootdiff.core.randomness import Draw
from bootdiff.data.sources.base import Ahead, Batch, Source
from bootdiff.system.out_of_memory import let_pass

#: the most samples of the batch by which a source is tried
TRIED = 2


@dataclass(frozen=True)
class Checked:
    """A source that was made in Python; each of its batches is checked, by shapes and types alone.

    Args:
        source: the source.
        shape: the shape of one sample, without the batch.
        times: for trajectories, the number of their times; 0 for as many as a batch says.
    """

    source: Source
    shape: tuple[int, ...]
    times: int = 0

    @property
    def kind(self) -> str:
        """The word that asks for such a source."""
        return self.source.kind

    @property
    def data_free(self) -> bool:
        """Whether no image of a data set is read."""
        return self.source.data_free

    def ahead(self, step: int, batch_size: int) -> None:
        """Let the source make what a step needs."""
        self.source.ahead(step, batch_size)

    def modules(self) -> Sequence[nn.Module]:
        """Return the networks that the source asks."""
        return self.source.modules()

    def batch(self, draw: Draw) -> Batch:
        """Return the source's slice of a batch.

        Raises:
            BootdiffError: if a tensor has another shape or type than the method expects; the message names both.
        """
        batch, count = self.source.batch(draw), len(draw)
        if not isinstance(batch, Batch) or not isinstance(batch.condition, Condition):
            found = shown(batch) if not isinstance(batch, Batch) else f"one with the condition {shown(batch.condition)}"
            raise BootdiffError(f"{self._name} should return a bootdiff Batch with a Condition, got {found}.")
        self._check("noise", batch.noise, (count, *self.shape))
        if self.kind in ("pairs", "images"):
            self._check("data", batch.data, (count, *self.shape))
        if self.kind == "trajectories":
            self._check("states", batch.states, (count, self.times or len(batch.times), *self.shape))
        for name, value in batch.condition.items():
            if len(value) != count:
                raise BootdiffError(f"{self._name} gives {len(value)} rows of the condition {name}; expected {count}.")
        return batch

    def tried(self, seed: int, batch_size: int) -> Checked:
        """Return the source after trying it on a small batch, if it has everything from the start.

        Raises:
            BootdiffError: if the batch cannot be made, or is not what a method expects.
        """
        if isinstance(self.source, Ahead):
            size = min(TRIED, batch_size)
            try:
                self.batch(Draw(seed, 0, "student", 0, size, size, _device(self.source.modules())))
            except BootdiffError:
                raise
            except Exception as error:  # somebody else's source may raise anything
                let_pass(error)
                raise BootdiffError(f"{self._name} raised {type(error).__name__}: {first_line(error)}") from error
        return self

    @property
    def _name(self) -> str:
        return f"{type(self.source).__name__}.batch"

    def _check(self, name: str, value: object, shape: tuple[int, ...]) -> None:
        fits = isinstance(value, Tensor) and value.is_floating_point() and tuple(value.shape) == shape
        if not fits:
            found = f"{tuple(value.shape)} in {value.dtype}" if isinstance(value, Tensor) else shown(value)
            raise BootdiffError(f"{self._name}: its {name} should be real numbers of the shape {shape}, got {found}.")


def check_is_source(source: object) -> None:
    """Refuse what is no source.

    Raises:
        BootdiffError: if a part is missing or of another kind; the message names it.
    """
    name = type(source).__name__
    if isinstance(source, type):
        raise BootdiffError(
            f"source= expects a source, got the class {source.__name__}; make one: {source.__name__}(…)."
        )
    lacks = [part for part in ("kind", "data_free", "batch", "ahead", "modules") if not hasattr(source, part)]
    if lacks:
        raise BootdiffError(
            f"source= expects a source such as those of bootdiff.data.sources, got a {name} without '{lacks[0]}'."
        )
    kind, free = getattr(source, "kind", None), getattr(source, "data_free", None)
    if not isinstance(kind, str):
        raise BootdiffError(f"{name}.kind should be a word such as 'pairs', got {shown(kind)}.")
    if not isinstance(free, bool):
        raise BootdiffError(f"{name}.data_free should be True or False, got {shown(free)}.")


def _device(modules: Sequence[nn.Module]) -> torch.device | str:
    """Return where the networks are that a source asks."""
    return next((value.device for module in modules for value in module.parameters()), "cpu")
