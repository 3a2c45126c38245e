"""Limits of a prediction of ``x_0``: the clipping and thresholding that a scheduler applies to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class LimitFields(BaseModel):
    """The fields of a diffusers scheduler config that limit x_0, with the ranges in which they mean something."""

    model_config = ConfigDict(extra="ignore", strict=True)

    thresholding: bool = False
    dynamic_thresholding_ratio: float = Field(0.995, gt=0, le=1)
    sample_max_value: float = Field(1.0, ge=1, allow_inf_nan=False)
    clip_sample: bool = False
    clip_sample_range: Positive = 1.0


class Limit(Protocol):
    """A function that brings x_0, (b, ...) in float32, into the data's range."""

    def __call__(self, x_0: Tensor) -> Tensor: ...

    def scheduler_fields(self) -> dict[str, Any]:
        """Return the same rule as fields of a diffusers scheduler config."""
        ...


@dataclass(frozen=True)
class NoLimit:
    """The limit that leaves x_0 as it is: for latents, and for schedulers that neither clip nor threshold."""

    def __call__(self, x_0: Tensor) -> Tensor:
        return x_0

    def scheduler_fields(self) -> dict[str, Any]:
        """Return the fields that switch clipping and thresholding off."""
        return {"clip_sample": False, "thresholding": False}


@dataclass(frozen=True)
class Clip:
    """The limit that clips x_0 to [−limit, limit]."""

    limit: float = 1.0

    def __call__(self, x_0: Tensor) -> Tensor:
        return _open(x_0, x_0.clamp(-self.limit, self.limit))

    def scheduler_fields(self) -> dict[str, Any]:
        """Return the fields that switch clipping on, with this range."""
        return {"clip_sample": True, "clip_sample_range": self.limit, "thresholding": False}


@dataclass(frozen=True)
class DynamicThreshold:
    """The limit that clips each sample to a quantile of its |x_0| and divides by that (Saharia et al.).

    The quantile is the ``ratio``-quantile, kept in [1, maximum].
    """

    ratio: float = 0.995
    maximum: float = 1.0

    def __call__(self, x_0: Tensor) -> Tensor:
        flat = x_0.flatten(1)
        bound = torch.quantile(flat.abs(), self.ratio, dim=1, keepdim=True).clamp(1, max(1.0, self.maximum))
        return _open(x_0, (flat.clamp(-bound, bound) / bound).reshape(x_0.shape))

    def scheduler_fields(self) -> dict[str, Any]:
        """Return the fields that switch thresholding on, with this ratio and maximum."""
        return {
            "clip_sample": False,
            "thresholding": True,
            "dynamic_thresholding_ratio": self.ratio,
            "sample_max_value": self.maximum,
        }


def _open(x_0: Tensor, limited: Tensor) -> Tensor:
    """Return ``limited``, with NaN where x_0 was not finite: a limit would make an overflow look like white."""
    return torch.where(torch.isfinite(x_0), limited, torch.nan)


def limit_from(fields: Mapping[str, Any]) -> Limit:
    """Return the limit whose ``scheduler_fields`` these are; thresholding goes before clipping, as in diffusers.

    Raises:
        ValidationError: if a field is out of range, or of another kind.
    """
    read = LimitFields.model_validate(fields)
    if read.thresholding:
        return DynamicThreshold(read.dynamic_thresholding_ratio, read.sample_max_value)
    return Clip(read.clip_sample_range) if read.clip_sample else NoLimit()
