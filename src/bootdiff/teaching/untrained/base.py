"""What is trained, and on what: the contract of this folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.core.randomness import Draw
from bootdiff.core.transfer import to_device
from bootdiff.data.labels import Captions
from bootdiff.data.sources import Description, Undescribed
from bootdiff.methods.denoising import TextEncoder
from bootdiff.teachers import PipelineTeacher
from bootdiff.teachers.adapters import adapter_for
from bootdiff.teachers.loading.loaded import LoadedParts
from bootdiff.teaching.settings import TeacherSettings

#: conditions of the samples that a training shows on its way
SHOWN = 64
#: diffusers' names of the beta schedules
BETA_SCHEDULES = {
    "cosine": "squaredcos_cap_v2",
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "sigmoid": "sigmoid",
}


@dataclass(frozen=True)
class Data:
    """Images and what is said of them.

    Args:
        pixels: (n, c, h, w) in uint8.
        labels: (n,) in int64.
        captions: of every image.
        names: of the classes by their labels, where the data have any.
    """

    pixels: Tensor
    labels: Tensor | None = None
    captions: Captions | None = None
    names: tuple[str, ...] = ()


@dataclass
class Untrained:
    """A stock pipeline in memory, and how it is trained.

    Args:
        pipeline: a diffusers pipeline with random weights.
        description: of the images, as the network's condition.
        shown: conditions of the samples that are shown on the way.
        encoder: trained together with the network.
        null_class: the label that stands for no class.
    """

    pipeline: Any
    description: Description = field(default_factory=Undescribed)
    shown: Condition = field(default_factory=Condition)
    encoder: TextEncoder | None = None
    null_class: int | None = None

    def reading(self, name: str = "new teacher") -> PipelineTeacher:
        """The pipeline as a teacher whose x_0 is not limited."""
        parts = LoadedParts(self.pipeline)
        adapter = adapter_for(parts.pipeline_class, name)(parts)
        return PipelineTeacher(adapter, adapter.load(), name)


@dataclass(frozen=True)
class Labelled:
    """Class labels, some of them dropped for "no class".

    Args:
        labels: of every image, (n,).
        null: the label that stands for no class.
        dropout: how often it does.
    """

    labels: Tensor
    null: int
    dropout: float

    def of(self, rows: Tensor, draw: Draw) -> Condition:
        """With the entry ``classes``."""
        labels = to_device(self.labels[rows], draw.device)
        return Condition({"classes": labels.where(draw.uniform("dropout") >= self.dropout, self.null)})


@dataclass(frozen=True)
class Captioned:
    """One of every image's captions as tokens, some of them dropped for the empty prompt.

    Args:
        captions: of every image.
        tokens, mask: (m + 1, length) of the distinct captions, and at last of the empty prompt.
        dropout: how often it is taken.
    """

    captions: Captions
    tokens: Tensor
    mask: Tensor
    dropout: float
    copies: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of_data(cls, captions: Captions, tokenizer: Any, dropout: float, length: int) -> Captioned:
        """Tokens padded to ``length``, as the stock pipelines pad them."""
        words = tokenizer([*captions.texts, ""], padding="max_length", max_length=length, truncation=True)
        return cls(captions, torch.tensor(words.input_ids), torch.tensor(words.attention_mask), dropout)

    def of(self, rows: Tensor, draw: Draw) -> Condition:
        """With the entries ``tokens`` and ``mask``."""
        own = to_device(self.captions.rows[rows], draw.device)
        chosen = own.gather(1, draw.integers("caption", own.shape[1])[:, None])[:, 0]
        dropped = draw.uniform("dropout") < self.dropout
        return self._rows(chosen.masked_fill(dropped, len(self.tokens) - 1))

    def shown(self) -> Condition:
        """Of the first captions."""
        return self._rows(torch.arange(SHOWN) % len(self.captions.texts))

    def _rows(self, rows: Tensor) -> Condition:
        if rows.device not in self.copies:  # copied once: what was drawn on a GPU need not come back for them
            self.copies[rows.device] = self.tokens.to(rows.device), self.mask.to(rows.device)
        tokens, mask = self.copies[rows.device]
        return Condition({"tokens": tokens[rows], "mask": mask[rows]})


def groups(channels: Sequence[int]) -> int:
    """Of a normalisation that fits every level."""
    return math.gcd(*channels, 8)


def scheduler_fields(settings: TeacherSettings) -> dict[str, Any]:
    """The schedule and prediction type, as diffusers' schedulers name them."""
    return {"beta_schedule": BETA_SCHEDULES[settings.schedule], "prediction_type": settings.prediction}
