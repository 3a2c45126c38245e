"""Runs of two methods: the first trains a student, and the second goes on from it (``--method boot+dm``).

Source: docs/method.md, "BOOT, then a correction".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self

from pydantic import Field, create_model, model_validator

from bootdiff.config.base import Settings
from bootdiff.config.mixins import Rounds
from bootdiff.core.errors import BootdiffError, shown
from bootdiff.methods.method import ANY, Method, Stage
from bootdiff.methods.settings import DistillationSettings

#: the settings that the first stage may have otherwise. How long and how fast a stage learns is its own (OWN); what the
#: path is and what it is conditioned on must be the same for both stages. So is what a stage learns from.
MAY_DIFFER = (
    *("delta", "solver", "loss_weight", "time_sampling", "boundary_weight", "boundary_every", "distance"),
    *("lpips_weights", "batch_size", "seed", "weight_decay", "gradient_clip", "gradient_accumulation"),
    *("gradient_checkpointing", "compile", "mixed_precision", "watch_every", "keep"),
    *("log_every", "sample_every", "checkpoint_every", "keep_last"),
)
TRAINS = ("steps", "learning_rate", "lr_schedule", "warmup_steps", "ema_decay", "stop_when")
OWN = (*TRAINS, "source", "pairs", "pair_steps", "pair_solver", "images", "resize")


class TwoStages(Settings):
    """Settings of a method that comes after another one in the same run.

    The first stage's are a setting of the first method's name, a dictionary.
    """

    #: the method of the first stage, and the name of the run's whole method
    before: ClassVar[Method]
    method_name: ClassVar[str]

    @property
    def first(self) -> DistillationSettings:
        """Return the settings of the first stage."""
        kind = self.before.settings
        both = {key: value for key, value in self.model_dump().items() if key in kind.model_fields}
        return kind(**{key: value for key, value in both.items() if self._is_handed_down(key, value)} | self._asked)

    def _is_handed_down(self, key: str, value: Any) -> bool:
        """Whether the first stage has this value as well, unless it is given its own.

        Where both methods' defaults differ, the last one's is its own.
        """
        default, firsts = (kind.model_fields[key].default for kind in (type(self), self.before.settings))
        return key not in OWN and not (key in MAY_DIFFER and value == default != firsts)

    def last_alone(self, given: Iterable[str]) -> str:
        """Return a sentence on which of the given lengths and rates are the last stage's alone; empty where none is.

        Args:
            given: the names of settings that were asked for.
        """
        kind, name = self.before.settings, self.before.name
        alone = [key for key in TRAINS if key in given and key in kind.model_fields and key not in self._asked]
        if not alone:
            return ""
        firsts = ", ".join(f"{name}.{key} stays {getattr(self.first, key)}" for key in alone)
        return f"{' and '.join(alone)} {'is' if len(alone) == 1 else 'are'} the last stage's alone: {firsts}."

    @property
    def _asked(self) -> dict[str, Any]:
        asked: dict[str, Any] = getattr(self, self.before.name)
        return asked

    @model_validator(mode="before")
    @classmethod
    def _of_a_stage(cls, values: Any) -> Any:
        """Refuse a setting of the first stage without its name, and settings of a stage that there is not."""
        if not isinstance(values, Mapping):
            return values
        first, second = cls.before.name, cls.method_name.rpartition("+")[2]
        for key, value in values.items():
            if key in cls.model_fields:
                continue
            if key in cls.before.settings.model_fields:
                raise BootdiffError(f"'{key}' is a setting of the first stage alone; set {first}.{key}={shown(value)}.")
            if isinstance(value, Mapping) and not issubclass(cls, Rounds):
                raise BootdiffError(
                    f"method {cls.method_name} has no stage {shown(key)}; {first}.{_one(value)} is a setting of the "
                    f"stage {first}, and {_one(value)} one of the last, {second}."
                )
        return values

    @model_validator(mode="after")
    def _first_stage(self) -> Self:
        name = self.before.name
        try:
            first = self.first
        except BootdiffError as error:
            raise BootdiffError(f"{name}: {error}") from error
        if (first.final_calls or 1) > 1:
            raise BootdiffError(
                f"{name} ends with a student of {first.final_calls} calls, and what follows goes on from the image of "
                "one call; let it end with one."
            )
        for key in self._asked:
            shared = key in type(self).model_fields and key not in (*OWN, *MAY_DIFFER)
            if shared and getattr(first, key) != getattr(self, key):
                raise BootdiffError(f"{name}.{key}: both stages have the same one; set {key} itself.")
        return self


def _one(words: Mapping[str, Any]) -> str:
    """Return the name of the first setting among some."""
    return next(iter(words), "steps")


def two_stages(first: Method, second: Method) -> Method:
    """Return the method that trains by ``first``, and then by ``second`` from the student of the first."""
    words = f"the first stage's, where they are others; these are always its own: {', '.join(OWN)}"
    bases: Any = (TwoStages, second.settings)
    fields: Any = {first.name: (dict[str, Any], Field(default_factory=dict, description=words))}
    title = f"{first.name.capitalize()}Then{second.settings.__name__}"
    settings: Any = create_model(title, __base__=bases, __doc__=second.settings.__doc__, **fields)
    name = f"{first.name}+{second.name}"
    settings.before, settings.method_name = first, name
    settings.usual_guidance = first.settings.usual_guidance

    def stages(asked: Any) -> list[Stage]:
        *rounds, end = first.stages_of(asked.first)
        # Beside the first method's own folder, which begins with its last round.
        named = [replace(one, name=f"rounds/{first.name}-{one.name.rpartition('/')[2]}") for one in rounds]
        return [*named, replace(end, name=first.name), *second.stages_of(asked)]

    kind = first.student if second.student == ANY else second.student
    return Method(name, second.objective, settings, second.sources, second.needs_teacher, kind, stages)
