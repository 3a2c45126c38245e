"""A data set as the source of a distillation: fitted to its teacher, described as the teacher is told, and encoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.core.randomness import Draw
from bootdiff.core.transfer import to_device
from bootdiff.data.data_set import Data, check_count
from bootdiff.data.images import load_images
from bootdiff.data.labels import Captions, load_captions, load_labels
from bootdiff.data.making import Maker
from bootdiff.data.pictures import to_unit
from bootdiff.data.resizing import resized
from bootdiff.data.shards import Manifest, Shards
from bootdiff.data.sources import Description
from bootdiff.samplers.base import batch_for
from bootdiff.system.notes import note
from bootdiff.teachers import Teacher, adapter_of
from bootdiff.teachers.adapters.base import Adapter


def load_for(teacher: Teacher, data: str, resize: int | None = None, classes: Sequence[int] | None = None) -> Data:
    """Return a data set whose images have the teacher's size, with the labels or captions that the teacher is told.

    Args:
        resize: the side to which the images are resized; None leaves them as they are.
        classes: the class labels of the images that are kept; None keeps all.

    Raises:
        BootdiffError: if it cannot be read, does not fit the teacher, or lacks labels or captions.
    """
    adapter = adapter_of(teacher)
    if adapter is not None and adapter.upscales:
        raise BootdiffError(f"--source images is not for super-resolution teachers such as {teacher.name}.")
    pixels = fitted(load_images(data, resize), image_shape(teacher), resize, f"{data}", teacher.name)
    takes = "nothing" if adapter is None else adapter.takes
    if adapter is not None and takes == "classes":
        return _labelled(data, pixels, adapter, classes)
    if takes == "prompts":
        captions = load_captions(data)
        check_count(data, len(pixels), len(captions.rows), "captions")
        return Data(pixels, captions=captions)
    return Data(pixels)


def image_shape(teacher: Teacher) -> tuple[int, int, int]:
    """Return the shape (c, h, w) of the images that become a teacher's samples.

    Raises:
        BootdiffError: if its samples are no images.
    """
    adapter, shape = adapter_of(teacher), tuple(teacher.shape)
    if len(shape) != 3:
        raise BootdiffError(f"--source images needs a teacher of images; {teacher.name} has samples of shape {shape}.")
    if adapter is None or adapter.vae is None:
        return shape
    return (adapter.vae.in_channels, shape[1] * adapter.factor, shape[2] * adapter.factor)


def fitted(pixels: Tensor, shape: tuple[int, int, int], resize: int | None, name: str, teacher: str) -> Tensor:
    """Return images (n, *shape) in uint8, resized where that is asked for, and padded with black where they are small.

    Raises:
        BootdiffError: if they are of other colours, or larger.
    """
    if resize is not None and tuple(pixels.shape[-2:]) != (resize, resize):
        if pixels.shape[-1] != pixels.shape[-2]:
            raise BootdiffError(f"{name}: expected square images to resize, got {_size(pixels.shape)}; crop them.")
        pixels = resized(pixels, resize)
    colours, height, width = shape
    if pixels.shape[1] != colours:
        raise BootdiffError(
            f"the images of {name} have {pixels.shape[1]} channels and those of {teacher} {colours}; convert them."
        )
    below, right = height - pixels.shape[2], width - pixels.shape[3]
    if below < 0 or right < 0:
        raise BootdiffError(
            f"the images of {name} are {_size(pixels.shape)} and those of {teacher} {width}×{height}; resize them with "
            f"--set resize={min(height, width)}."
        )
    if below or right:
        note(f"the images of {name}, {_size(pixels.shape)}, are padded with black to {width}×{height}.")
        pixels = pad(pixels, (right // 2, right - right // 2, below // 2, below - below // 2))
    return pixels


def _size(shape: Sequence[int]) -> str:
    return f"{shape[-1]}×{shape[-2]}"


def _labelled(data: str, pixels: Tensor, adapter: Adapter, classes: Sequence[int] | None) -> Data:
    labels = load_labels(data)
    check_count(data, len(pixels), len(labels), "labels")
    if int(labels.max()) >= adapter.classes:
        raise BootdiffError(
            f"{data} has the label {int(labels.max())}, and the teacher knows {adapter.classes} classes, from 0; "
            "renumber the labels as it was told them."
        )
    if classes is not None:
        kept = torch.isin(labels, torch.tensor(list(classes)))
        if not bool(kept.any()):
            raise BootdiffError(f"{data} has no image of the classes {', '.join(map(str, classes))}; name others.")
        pixels, labels = pixels[kept], labels[kept]
    return Data(pixels, labels=labels)


@dataclass(frozen=True)
class Labels:
    """The description of images by their class labels, (n,) in int64."""

    labels: Tensor

    def of(self, rows: Tensor, draw: Draw) -> Condition:
        """Return the labels of these images as the entry ``classes``, (b,)."""
        return Condition({"classes": to_device(self.labels[rows], draw.device)})


@dataclass(frozen=True)
class EncodedCaptions:
    """The description of images by the embeddings of their captions; of several one is drawn.

    Args:
        captions: the captions of every image.
        rows: a function from captions' numbers to their embeddings.
    """

    captions: Captions
    rows: Callable[[Sequence[int]], Condition]

    def of(self, rows: Tensor, draw: Draw) -> Condition:
        """Return the embeddings of one caption of each of these images."""
        own = self.captions.rows[rows]
        chosen = replace(draw, device="cpu").integers("caption", own.shape[1])  # on the CPU, which need not wait for it
        return self.rows(own.gather(1, chosen[:, None])[:, 0].tolist()).to(draw.device)


@dataclass(frozen=True)
class WithWeight:
    """Another description, with a guidance weight that is drawn uniformly from a range for each image."""

    inner: Description
    lowest: float
    highest: float

    def of(self, rows: Tensor, draw: Draw) -> Condition:
        """Return the inner condition with the further entry ``guidance``, (b,)."""
        weight = self.lowest + (self.highest - self.lowest) * draw.uniform("guidance")
        return self.inner.of(rows, draw).add(guidance=weight)


@dataclass(frozen=True)
class Latents:
    """Images as stored latents, for ``data.sources.Images``: selected by their numbers, in float32."""

    shards: Shards

    def __len__(self) -> int:
        return self.shards.manifest.count

    def __getitem__(self, rows: Tensor) -> Tensor:
        return self.shards.rows(rows.tolist())["data"]


def encoded(
    pixels: Tensor, adapter: Adapter, folder: Path, device: torch.device | str, made: dict[str, Any]
) -> Latents:
    """Return images as latents that are kept in a folder; those that are not there yet are encoded by all processes.

    Args:
        made: what the latents depend on: the hashes of the images and of the autoencoder.

    Raises:
        Interrupted: if that is stopped; the shards that are made stay.
    """
    shape = tuple(adapter.shape)
    shards = Shards(folder, Manifest("latents", len(pixels), shape, {"data": shape}, made))

    def make(start: int, stop: int) -> dict[str, Tensor]:
        return {"data": adapter.latents(to_unit(pixels[start:stop]).to(device))}

    Maker(shards, make, batch_for(pixels.shape[1:])).ensure(0, len(pixels))
    adapter.release_decoder()
    return Latents(shards)
