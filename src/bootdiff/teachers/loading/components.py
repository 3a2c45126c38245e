"""What an adapter asks of the pipeline that it reads, wherever that is: in a folder, in memory, around a student."""

from __future__ import annotations

import inspect
import json
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn


class Components(Protocol):
    """A pipeline's components by their names in ``model_index.json``, such as ``"unet"`` or ``"vae"``."""

    #: its ``model_index.json``
    index: dict[str, Any]
    #: where it lies; of a pipeline in memory its class's name, for messages
    folder: Path
    #: the side of the images in pixels, where it is another than the pipeline's default
    size: int | None

    @property
    def pipeline_class(self) -> str:
        """The stock pipeline's class name."""
        return str(self.index.get("_class_name", "?"))

    def kind(self, part: str) -> str | None:
        """The class name of a component, None where the pipeline has none."""
        entry = self.index.get(part)
        return entry[1] if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str) else None

    @property
    def components(self) -> list[str]:
        """Every component that the pipeline has."""
        return [part for part in self.index if self.kind(part) is not None]

    @property
    def null_class(self) -> int | None:
        """The label that stood for no class, where ``train-teacher`` wrote it down."""
        return None

    @property
    def class_names(self) -> list[str]:
        """The names of the classes by their labels, where ``train-teacher`` wrote them down."""
        return []

    @abstractmethod
    def where(self, part: str) -> Path:
        """A component's folder; of a pipeline in memory a name for messages."""

    @abstractmethod
    def config(self, part: str) -> dict[str, Any]:
        """A component's config as its file says it."""

    @abstractmethod
    def full_config(self, part: str) -> dict[str, Any]:
        """A network's config with all that its class adds by itself: what stock pipelines read."""

    @property
    @abstractmethod
    def scheduler(self) -> dict[str, Any]:
        """The scheduler's config as stock diffusers reads it, with the class that it builds."""

    @abstractmethod
    def digest(self, network_part: str) -> str:
        """Of all components but the network, where nothing else says which they are."""

    @abstractmethod
    def network(self, part: str, kind: type[Any]) -> nn.Module:
        """The denoising network, complete and finite.

        Raises:
            BootdiffError: if it cannot be read, or is of another class.
        """

    @abstractmethod
    def check(self, *parts: str) -> None:
        """Refuse a pipeline that lacks one of these components.

        Raises:
            BootdiffError: naming it.
        """

    @abstractmethod
    def try_out(self, *parts: str) -> None:
        """Read components and forget them again: what is wrong with one is found before anything is trained.

        Raises:
            BootdiffError: if a component cannot be read, is incomplete, or holds values that are not finite.
        """

    @abstractmethod
    def load(self, part: str) -> Any:
        """A component, kept until ``release``.

        Raises:
            BootdiffError: if it is missing or cannot be read.
        """

    @abstractmethod
    def release(self, *parts: str) -> None:
        """Forget components, so that their memory can be used again; all of them where none is named."""

    @abstractmethod
    def pipeline(self, dtype: torch.dtype | None = None, **replaced: Any) -> Any:
        """The stock pipeline, with these components in place of its own; None leaves one out.

        Args:
            dtype: another one than the teacher's.

        Raises:
            BootdiffError: if one of its other components cannot be read.
        """


def assembled(kind: type[Any], words: Mapping[str, Any]) -> Any:
    """A stock pipeline of its components and settings, without progress bars; what its class does not take is left."""
    wanted = inspect.signature(kind.__init__).parameters
    return silent(kind(**{name: value for name, value in words.items() if name in wanted}))


def plain(config: Any) -> dict[str, Any]:
    """A config as its JSON file would say it: lists for tuples."""
    words = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return json.loads(json.dumps(words, default=str))


def silent(pipeline: Any) -> Any:
    """A pipeline without progress bars."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
