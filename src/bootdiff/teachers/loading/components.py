"""What an adapter asks of the pipeline that it reads, which may lie in a folder, in memory or around a student."""

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

    #: the content of the pipeline's ``model_index.json``
    index: dict[str, Any]
    #: the folder in which the pipeline lies; for a pipeline in memory the name of its class, for messages
    folder: Path
    #: the side of the images in pixels, where it is another than the pipeline's default; else None
    size: int | None

    @property
    def pipeline_class(self) -> str:
        """The class name of the stock pipeline."""
        return str(self.index.get("_class_name", "?"))

    def kind(self, part: str) -> str | None:
        """Return the class name of a component; None where the pipeline has none."""
        entry = self.index.get(part)
        return entry[1] if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str) else None

    @property
    def components(self) -> list[str]:
        """The names of all components that the pipeline has."""
        return [part for part in self.index if self.kind(part) is not None]

    @property
    def null_class(self) -> int | None:
        """The label that stood for no class, where ``train-teacher`` wrote it down; else None."""
        return None

    @property
    def class_names(self) -> list[str]:
        """The names of the classes by their labels, where ``train-teacher`` wrote them down; else an empty list."""
        return []

    @property
    def beside(self) -> Any:
        """The autoencoder that is this student's own, because its teacher has none; None for any other pipeline."""
        return None

    @abstractmethod
    def where(self, part: str) -> Path:
        """Return the folder of a component; for a pipeline in memory a name for messages."""

    @abstractmethod
    def config(self, part: str) -> dict[str, Any]:
        """Return a component's config as its file says it."""

    @abstractmethod
    def full_config(self, part: str) -> dict[str, Any]:
        """Return a network's config with all that its class adds by itself, as stock pipelines read it."""

    @property
    @abstractmethod
    def scheduler(self) -> dict[str, Any]:
        """The scheduler's config as stock diffusers reads it, with the class that it builds."""

    @abstractmethod
    def digest(self, network_part: str) -> str:
        """Return a text that identifies all components but the network; empty where their folder's files do."""

    @abstractmethod
    def network(self, part: str, kind: type[Any]) -> nn.Module:
        """Return the denoising network, complete and finite.

        Raises:
            BootdiffError: if the network cannot be read, or is of another class.
        """

    @abstractmethod
    def check(self, *parts: str) -> None:
        """Refuse a pipeline that lacks one of these components.

        Raises:
            BootdiffError: if one is missing; the message names it.
        """

    @abstractmethod
    def try_out(self, *parts: str) -> None:
        """Read components and forget them again, so that what is wrong with one is found before any training.

        Raises:
            BootdiffError: if a component cannot be read, is incomplete, or holds values that are not finite.
        """

    @abstractmethod
    def load(self, part: str) -> Any:
        """Return a component, which is kept until ``release``.

        Raises:
            BootdiffError: if the component is missing or cannot be read.
        """

    @abstractmethod
    def release(self, *parts: str) -> None:
        """Forget components, so that their memory can be used again; all of them where none is named."""

    @abstractmethod
    def pipeline(self, dtype: torch.dtype | None = None, **replaced: Any) -> Any:
        """Return the stock pipeline, with ``replaced`` in place of its own components; None leaves one out.

        Args:
            dtype: another precision than the teacher's.

        Raises:
            BootdiffError: if one of its other components cannot be read.
        """


def assembled(kind: type[Any], words: Mapping[str, Any]) -> Any:
    """Return a stock pipeline of components and settings, without progress bars.

    What its class does not take is left out.
    """
    wanted = inspect.signature(kind.__init__).parameters
    return silent(kind(**{name: value for name, value in words.items() if name in wanted}))


def plain(config: Any) -> dict[str, Any]:
    """Return a config as its JSON file would say it, with lists for tuples."""
    words = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return json.loads(json.dumps(words, default=str))


def silent(pipeline: Any) -> Any:
    """Switch a pipeline's progress bars off, and return the pipeline."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
