"""Runs of two stages: BOOT, then a correction (``--method boot+dm``).

Source: docs/method.md, "BOOT, then a correction".
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Self

from pydantic import Field, create_model, model_validator

from bootdiff.config.base import Settings
from bootdiff.core.errors import BootdiffError
from bootdiff.methods.boot import BootSettings
from bootdiff.methods.corrections.settings import CorrectionSettings

#: the settings that the first stage may have otherwise. How long and how fast a stage learns is its own (OWN); what the
#: path is and what it is conditioned on must be the same for both stages.
MAY_DIFFER = (
    *("delta", "solver", "loss_weight", "time_sampling", "boundary_weight", "boundary_every", "distance"),
    *("lpips_weights", "batch_size", "seed", "weight_decay", "gradient_clip", "gradient_accumulation"),
    *("gradient_checkpointing", "compile", "mixed_precision", "watch_every", "keep"),
    *("log_every", "sample_every", "checkpoint_every", "keep_last"),
)
OWN = ("steps", "learning_rate", "lr_schedule", "warmup_steps", "ema_decay", "stop_when")


class BootFirst(Settings):
    """Settings of a correction that comes after BOOT in the same run."""

    boot: dict[str, Any] = Field(
        default_factory=dict,
        description=f"the first stage's, where they are others; these are always its own: {', '.join(OWN)}",
    )

    @property
    def first(self) -> BootSettings:
        """Return the settings of the first stage."""
        both = {key: value for key, value in self.model_dump().items() if key in BootSettings.model_fields}
        return BootSettings(**{key: value for key, value in both.items() if key not in OWN} | self.boot)

    @model_validator(mode="after")
    def _first_stage(self) -> Self:
        try:
            first = self.first
        except BootdiffError as error:
            raise BootdiffError(f"boot: {error}") from error
        for key in self.boot:
            if key not in (*OWN, *MAY_DIFFER) and getattr(first, key) != getattr(self, key):
                raise BootdiffError(f"boot.{key}: both stages have the same one; set {key} itself.")
        return self


@lru_cache
def boot_first(settings: type[CorrectionSettings]) -> Any:
    """Return the settings class of BOOT followed by the correction that has these settings."""
    bases: Any = (BootFirst, settings)
    return create_model(f"BootThen{settings.__name__}", __base__=bases, __doc__=settings.__doc__)
