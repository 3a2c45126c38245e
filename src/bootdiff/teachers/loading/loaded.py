"""The components of a pipeline that is already in memory: with a LoRA, from a single file, or made in Python."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bootdiff.core.errors import BootdiffError
from bootdiff.teachers.loading.components import Components, assembled, plain
from bootdiff.teachers.loading.scheduler import as_stock_reads
from bootdiff.teachers.loading.weights import aligned, weights_hash


class LoadedParts(Components):
    """The components of a pipeline that is already in memory: with a LoRA, from a single file, or made in Python.

    Args:
        pipeline: a diffusers pipeline.
        borrowed: whether it is the user's own, which must stay as it is.
        size: the side of the images in pixels, where it is another than the pipeline's default; else None.
    """

    def __init__(self, pipeline: Any, borrowed: bool = False, size: int | None = None) -> None:
        self.stock, self.borrowed, self.size = pipeline, borrowed, size
        self.folder = Path(type(pipeline).__name__)
        self.index = {"_class_name": type(pipeline).__name__}
        for name, component in pipeline.components.items():
            module = type(component).__module__.split(".")[0]
            self.index[name] = [None, None] if component is None else [module, type(component).__name__]

    def where(self, part: str) -> Path:
        """Return a component's name for messages."""
        return self.folder / part

    def config(self, part: str) -> dict[str, Any]:
        """Return a component's own config."""
        return plain(getattr(self.stock, part).config)

    def full_config(self, part: str) -> dict[str, Any]:
        """Return a component's own config, which is complete because the component was built already."""
        return self.config(part)

    @property
    def scheduler(self) -> dict[str, Any]:
        """The scheduler's config as stock diffusers reads it, with its class."""
        kind = type(self.stock.scheduler).__name__
        return as_stock_reads(
            {**plain(self.stock.scheduler.config), "_class_name": kind}, kind, self.where("scheduler")
        )

    def digest(self, network_part: str) -> str:
        """Return a text of the other networks' configs and hashes of weights, and of the tokenizers' words."""
        others = {name: part for name, part in self.stock.components.items() if name != network_part}
        words = []
        for name, part in others.items():
            if isinstance(part, nn.Module):
                config = {key: value for key, value in plain(part.config).items() if not key.startswith("_")}
                words.append(f"{name} {weights_hash(part)} {sorted(config.items())}")
            elif hasattr(part, "get_vocab"):
                words.append(f"{name} {sorted(part.get_vocab().items())}")
        return "\n".join(words)

    def network(self, part: str, kind: type[Any]) -> nn.Module:
        """Return the network that the pipeline holds; a copy of it where the pipeline is the user's own."""
        network = getattr(self.stock, part)
        return aligned(copy.deepcopy(network) if self.borrowed else network)

    def try_out(self, *parts: str) -> None:
        """Refuse a pipeline without one of these components; they need no reading, because they are in memory."""
        self.check(*parts)

    def check(self, *parts: str) -> None:
        """Refuse a pipeline that lacks one of these components."""
        for part in parts:
            if self.kind(part) is None:
                raise BootdiffError(f"this {self.pipeline_class} has no {part}, which it needs here.")

    def load(self, part: str) -> Any:
        """Return a component of the pipeline."""
        self.check(part)
        return getattr(self.stock, part)

    def release(self, *parts: str) -> None:
        """Do nothing, because the pipeline holds its components."""

    def pipeline(self, dtype: torch.dtype | None = None, **replaced: Any) -> Any:
        """Return a pipeline of the same class with ``replaced`` in place of its own components.

        In another precision it is made of copies.
        """
        known = {**plain(self.stock.config), **self.stock.components, **replaced}
        for name, value in known.items():
            other = dtype is not None and isinstance(value, nn.Module) and next(value.parameters()).dtype != dtype
            known[name] = copy.deepcopy(value).to(dtype) if other else value
        return assembled(type(self.stock), known)
