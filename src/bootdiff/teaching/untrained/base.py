"""What the files of this folder have in common: the data, and a pipeline that is not trained yet."""

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

#: the number of samples that are shown during training
SHOWN = 64
#: the names that diffusers gives to our beta schedules
BETA_SCHEDULES = {
    "cosine": "squaredcos_cap_v2",
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "sigmoid": "sigmoid",
}


@dataclass
class Untrained:
    """A stock pipeline in memory, and what its training needs.

    Args:
        pipeline: a diffusers pipeline with random weights.
        description: describes the images, as the network's condition.
        shown: the conditions of the samples that are shown during training.
        encoder: the text encoder that is trained together with the network, if there is one.
        null_class: the label that stands for no class.
    """

    pipeline: Any
    description: Description = field(default_factory=Undescribed)
    shown: Condition = field(default_factory=Condition)
    encoder: TextEncoder | None = None
    null_class: int | None = None

    def reading(self, name: str = "new teacher") -> PipelineTeacher:
        """Return the pipeline as a teacher whose x_0 is not limited."""
        parts = LoadedParts(self.pipeline)
        adapter = adapter_for(parts.pipeline_class, name)(parts)
        return PipelineTeacher(adapter, adapter.load(), name)


@dataclass(frozen=True)
class Labelled:
    """Class labels as conditions, some of them replaced by the label for "no class".

    Args:
        labels: the label of every image, (n,).
        null: the label that stands for no class.
        dropout: the share of labels that are replaced, in [0, 1].
    """

    labels: Tensor
    null: int
    dropout: float

    def of(self, rows: Tensor, draw: Draw) -> Condition:
        """Return the condition of these images, with the entry ``classes``, (b,)."""
        labels = to_device(self.labels[rows], draw.device)
        return Condition({"classes": labels.where(draw.uniform("dropout") >= self.dropout, self.null)})


@dataclass(frozen=True)
class Captioned:
    """Captions as conditions: one caption of each image as tokens, some replaced by the empty prompt.

    Args:
        captions: the captions of every image.
        tokens, mask: (m + 1, length): a row for each distinct caption, and the last one for the empty prompt.
        dropout: the share of captions that are replaced, in [0, 1].
    """

    captions: Captions
    tokens: Tensor
    mask: Tensor
    dropout: float
    copies: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of_data(cls, captions: Captions, tokenizer: Any, dropout: float, length: int) -> Captioned:
        """Return captions with their tokens, padded to ``length`` as the stock pipelines pad them."""
        words = tokenizer([*captions.texts, ""], padding="max_length", max_length=length, truncation=True)
        return cls(captions, torch.tensor(words.input_ids), torch.tensor(words.attention_mask), dropout)

    def of(self, rows: Tensor, draw: Draw) -> Condition:
        """Return the condition of these images, with the entries ``tokens`` and ``mask``, each (b, length)."""
        own = to_device(self.captions.rows[rows], draw.device)
        chosen = own.gather(1, draw.integers("caption", own.shape[1])[:, None])[:, 0]
        dropped = draw.uniform("dropout") < self.dropout
        return self._rows(chosen.masked_fill(dropped, len(self.tokens) - 1))

    def shown(self) -> Condition:
        """Return the condition of the samples that are shown, made of the first captions."""
        return self._rows(torch.arange(SHOWN) % len(self.captions.texts))

    def _rows(self, rows: Tensor) -> Condition:
        if rows.device not in self.copies:  # copied once: what was drawn on a GPU need not come back for them
            self.copies[rows.device] = self.tokens.to(rows.device), self.mask.to(rows.device)
        tokens, mask = self.copies[rows.device]
        return Condition({"tokens": tokens[rows], "mask": mask[rows]})


def groups(channels: Sequence[int]) -> int:
    """Return the number of groups of a normalisation that fits every level."""
    return math.gcd(*channels, 8)


def scheduler_fields(settings: TeacherSettings) -> dict[str, Any]:
    """Return the schedule and prediction type as settings of diffusers' schedulers."""
    return {"beta_schedule": BETA_SCHEDULES[settings.schedule], "prediction_type": settings.prediction}
