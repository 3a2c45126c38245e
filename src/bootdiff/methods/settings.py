"""The settings that every distillation has, whatever its method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import model_validator

from bootdiff.config.mixins import (
    Architecture,
    Conditioning,
    Distance,
    Encoders,
    Monitoring,
    Start,
    Targets,
    Times,
)
from bootdiff.config.settings import TrainingSettings
from bootdiff.core.errors import BootdiffError
from bootdiff.core.guidance import GuidanceWeight
from bootdiff.teachers import Clip, DynamicThreshold, Limit, NoLimit, Teacher, adapter_of
from bootdiff.teachers.guidance import calls_an_answer, guidance_of


class DistillationSettings(
    Architecture, Encoders, Monitoring, Conditioning, Start, Targets, Distance, Times, TrainingSettings
):
    """The settings that are read on the way from a teacher to a student, whatever the method."""

    #: the range of guidance weights that a new student learns where neither a weight nor a range is asked for
    usual_guidance: ClassVar[Sequence[float] | None] = None

    @model_validator(mode="before")
    @classmethod
    def _usually_guided(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or cls.usual_guidance is None:
            return values
        asked = any(values.get(key) is not None for key in ("guidance_scale", "guidance_range", "start"))
        return values if asked else {**values, "guidance_range": list(cls.usual_guidance)}

    def check_teacher(self, teacher: Teacher) -> None:
        """Refuse a teacher that these settings do not fit.

        Raises:
            BootdiffError: if the teacher does not fit; the message names the setting.
        """
        return None

    def cautions(self, teacher: Teacher) -> Sequence[str]:
        """Return sentences about what is allowed and often regretted, to be said before the training.

        By default there are none.
        """
        return ()

    def path_ends(self, teacher: Teacher) -> tuple[float, float]:
        """Return both ends (t_min, t_max) of the path, as asked, or else the teacher's.

        A t_max that is asked for moves to the nearest time at which a student can start.
        """
        low, high = teacher.t_range
        low = low if self.t_min is None else self.t_min
        return low, high if self.t_max is None else teacher.nearest_start(self.t_max)

    @property
    def passes(self) -> float:
        """Return what a step is declared to cost in passes of the batch, of which looks may take a small share.

        It is that of the method's usual step, whatever the other settings are. It is declared, not counted, because the
        looks of a run, and so where it ends, must stay as they were (``monitoring/watch_plan.py``).
        """
        return 6.0

    @property
    def final_calls(self) -> int | None:
        """Return for how many calls the student at the end is made; None if any number makes sense."""
        return None

    @property
    def reads_features(self) -> bool:
        """Whether the loss reads the features of the teacher's network."""
        return False

    @property
    def anchored(self) -> bool:
        """Whether a loss holds the student's answers at t_max to the teacher's, as BOOT's boundary loss does."""
        return False

    @property
    def warm_from(self) -> int:
        """Return the step from which the student learns at its full rate."""
        return self.warmup_steps

    def check_source(self, kind: str) -> None:
        """Refuse a source, by its word, that the method can learn from and these settings cannot: by default none.

        Raises:
            BootdiffError: if it lacks what they need, or has what they do not read.
        """


def check_gradients(teacher: Teacher, what: str = "this method") -> None:
    """Refuse a float16 teacher for something that sends gradients through it.

    Raises:
        BootdiffError: if it has weights in float16.
    """
    if any(p.dtype == torch.float16 for p in teacher.parameters()):
        raise BootdiffError(
            f"gradients through a float16 teacher vanish; load it with --dtype bfloat16 or float32 for {what}."
        )


def target_limit(settings: DistillationSettings, teacher: Teacher) -> Limit:
    """Return the limit by which the x_0 of the targets is clipped or thresholded."""
    dynamic = DynamicThreshold(settings.dynamic_ratio, settings.dynamic_maximum)
    limits: dict[str, Limit] = {"teacher": teacher.limit, "none": NoLimit(), "clip": Clip(), "dynamic": dynamic}
    return limits[settings.target_limit]


def learned_weight(settings: DistillationSettings, teacher: Teacher) -> GuidanceWeight:
    """Return what the student learns of the guidance weight: nothing, one weight, or a range."""
    if settings.guidance_range is not None:
        return GuidanceWeight.of(settings.guidance_range)
    if settings.guidance_scale is not None:
        return GuidanceWeight.of(settings.guidance_scale)
    own = guidance_of(teacher)  # given in Python
    if own is not None:
        return GuidanceWeight.of(own.weight)
    adapter = adapter_of(teacher)
    # A network that must be told a weight is told its pipeline's usual one.
    return GuidanceWeight.of(None if adapter is None else adapter.embedded_weight)


def calls_a_target(settings: DistillationSettings, teacher: Teacher) -> int:
    """Return how often the network of a teacher is evaluated for one target: twice with guidance, else once."""
    adapter = adapter_of(teacher)
    free = adapter is not None and adapter.guidance == "free" and learned_weight(settings, teacher).guides
    return 2 if free else calls_an_answer(teacher)
