"""A pipeline's components around another denoising network than its own, for a student of another architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from bootdiff.teachers.loading.architecture import Architecture
from bootdiff.teachers.loading.components import Components, assembled, plain
from bootdiff.teachers.loading.identity_autoencoder import identity_autoencoder


class Substituted(Components):
    """The components of a teacher's pipeline, with a student's network in the place of the teacher's.

    Args:
        inner: the components of the teacher's pipeline.
        pipeline: the class of the stock pipeline that is to hold the student.
        part: the component of the network in that pipeline.
        architecture: the student's network.
        pixels: the number of channels of an image, where the pipeline wants an autoencoder and the teacher has none,
            because its samples are pixels; it gets one that changes nothing. Else None.
    """

    def __init__(
        self, inner: Components, pipeline: str, part: str, architecture: Architecture, pixels: int | None = None
    ) -> None:
        self.inner, self.part, self.architecture = inner, part, architecture
        self.folder, self.size = inner.folder, inner.size
        others = {name: entry for name, entry in inner.index.items() if name not in ("_class_name", *_networks(inner))}
        self.index = {"_class_name": pipeline, **others, part: ["diffusers", architecture.kind]}
        if pixels is not None:
            self.index["vae"] = ["diffusers", "AutoencoderKL"]
        self._beside = None if pixels is None else identity_autoencoder(pixels)

    @property
    def beside(self) -> Any:
        """The autoencoder that changes nothing, where the pipeline was given one."""
        return self._beside

    @property
    def null_class(self) -> int | None:
        """The label that stood for no class in the teacher's training; else None."""
        return self.inner.null_class

    @property
    def class_names(self) -> list[str]:
        """The names of the classes by their labels."""
        return self.inner.class_names

    def where(self, part: str) -> Path:
        """Return the folder of a component; for the network that of its config."""
        return self.architecture.folder if part == self.part else self.inner.where(part)

    def config(self, part: str) -> dict[str, Any]:
        """Return a component's config."""
        if part == self.part:
            return dict(self.architecture.fields)
        return plain(self.beside.config) if self._is_beside(part) else self.inner.config(part)

    def full_config(self, part: str) -> dict[str, Any]:
        """Return a network's config with all that its class adds by itself."""
        return self.config(part) if part == self.part or self._is_beside(part) else self.inner.full_config(part)

    @property
    def scheduler(self) -> dict[str, Any]:
        """The config of the teacher's scheduler."""
        return self.inner.scheduler

    def digest(self, network_part: str) -> str:
        """Return a text that identifies all components but the network: those of the teacher."""
        return self.inner.digest(network_part)

    def network(self, part: str, kind: type[Any]) -> nn.Module:
        """Return the network with weights drawn by the seed 0; a student's are given to it."""
        return self.architecture.draw(0)

    def check(self, *parts: str) -> None:
        """Refuse a pipeline that lacks one of these components."""
        self.inner.check(*self._of_inner(parts))

    def try_out(self, *parts: str) -> None:
        """Read components and forget them again, so that what is wrong with one is found before any training."""
        self.inner.try_out(*self._of_inner(parts))

    def load(self, part: str) -> Any:
        """Return a component, which is kept until ``release``."""
        return self.beside if self._is_beside(part) else self.inner.load(part)

    def release(self, *parts: str) -> None:
        """Forget components, so that their memory can be used again; all of them where none is named."""
        if not parts or self._of_inner(parts):
            self.inner.release(*self._of_inner(parts))

    def pipeline(self, dtype: torch.dtype | None = None, **replaced: Any) -> Any:
        """Return the stock pipeline, with ``replaced`` in place of its own components."""
        if self.pipeline_class == self.inner.pipeline_class:
            return self.inner.pipeline(dtype, **replaced)
        import diffusers

        beside = {} if self.beside is None else {"vae": self.beside}
        return assembled(getattr(diffusers, self.pipeline_class), {**beside, **replaced})

    def _is_beside(self, part: str) -> bool:
        return part == "vae" and self.beside is not None

    def _of_inner(self, parts: tuple[str, ...]) -> list[str]:
        return [part for part in parts if part != self.part and not self._is_beside(part)]


def _networks(inner: Components) -> list[str]:
    """Return the names of a pipeline's denoising networks."""
    return [part for part in ("unet", "transformer", "prior") if inner.kind(part) is not None]
