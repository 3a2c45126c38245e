"""How the conditions of a distillation are made from its settings: prompts, classes, guidance, a base stage."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.data.conditions import Cascade, Classes, Conditions, Unconditional, Upscaler, Weighted
from bootdiff.data.prompt_cache import row_bytes
from bootdiff.data.prompts import PromptFile
from bootdiff.data.sources import Source
from bootdiff.distillation.condition_checks import (
    asked_prompts,
    base_stage,
    check_asked,
    check_guidance,
    check_plain,
    class_labels,
    null_class,
)
from bootdiff.distillation.prompts import encode_prompts
from bootdiff.methods.settings import DistillationSettings, learned_weight
from bootdiff.storage.runs import Run
from bootdiff.teachers import Teacher, adapter_of, guided
from bootdiff.teachers.adapters.base import Adapter
from bootdiff.teachers.guidance import guidance_of
from bootdiff.teachers.loading.weights import tensors_hash, weights_hash

if TYPE_CHECKING:
    from bootdiff.students import Student
from bootdiff.students.card import LearnedConditions

#: the number of conditions made in Python whose hash tells them from others
HASHED = 256


class Material(NamedTuple):
    """What a student learns from: the teacher with its guidance, the conditions of the samples, and the batches."""

    teacher: Teacher
    conditions: Conditions
    #: made when the run has begun
    source: Source | None = None
    #: the run's teacher with its guidance, where the student of a round learns from another one: its images are judged
    #: by the run's, so that errors of the rounds before are seen
    judge: Teacher | None = None


@dataclass(frozen=True)
class ConditionPlan:
    """The conditions that samples will have, checked; only the prompts file and the base stage are loaded."""

    teacher: Teacher
    settings: DistillationSettings
    prompts: PromptFile | None = None
    base: Student | None = None
    #: conditions that were made in Python, in place of those that the settings describe
    given: Conditions | None = None

    @property
    def digests(self) -> dict[str, str]:
        """Return hashes of what the settings do not hold: prompts, the base stage's weights, conditions from Python."""
        hashes = {}
        if self.prompts is not None:
            hashes["prompts"] = self.prompts.digest
        if self.base is not None:
            hashes["base"] = weights_hash(self.base)
        if self.given is not None:
            hashes["conditions"] = tensors_hash(self.given.listed(0, 0, HASHED))
        return hashes

    def keep(self, folder: Path) -> None:
        """Save the prompts in the run's folder, so that it can be sampled and reported when their file has gone."""
        if self.prompts is not None:
            Run(folder).keep_prompts(self.prompts.prompts)

    @property
    def learned(self) -> LearnedConditions:
        """What a student remembers: labels, what guidance led away from, the noise level of its inputs."""
        adapter, settings = adapter_of(self.teacher), self.settings
        labels, null = None, None
        if self.given is not None:
            labels, guidance = labels_of(self.given), guidance_of(self.teacher)
            if guidance is not None and adapter is not None and adapter.takes == "classes":
                null = int(guidance.null["classes"])
        elif adapter is not None and adapter.takes == "classes":
            labels, null = class_labels(adapter, settings), null_class(adapter, settings)
        return LearnedConditions(
            labels=labels,
            null_class=null,
            negative_prompt=settings.negative_prompt,
            noise_level=None if self.base is None else settings.noise_level,
        )

    def describe_prompts(self) -> str:
        """Return how many prompts there are and what becomes of them, as text for the plan."""
        if self.prompts is None:
            return "none"
        count, size = len(self.prompts.prompts), self._embedding_bytes()
        how = "encoded once" if size <= self.settings.prompt_cache_gib * 2**30 else "encoded in the loop"
        return f"{count} of {self.prompts.source}; their embeddings take {size / 2**30:.3g} GiB, {how}"

    def _embedding_bytes(self) -> int:
        """Return the bytes that the embeddings of all prompts take."""
        adapter = adapter_of(self.teacher)
        if adapter is None or self.prompts is None:
            return 0
        return row_bytes(adapter.blank(1)) * len(self.prompts.prompts)

    def bytes_beside(self) -> int:
        """Return the bytes that a base stage, and encoders that would run in the loop, take on the device."""
        adapter, total = adapter_of(self.teacher), 0
        if self.base is not None:
            total += sum(4 * p.numel() for p in self.base.parameters())
        in_loop = self._embedding_bytes() > self.settings.prompt_cache_gib * 2**30
        if adapter is not None and in_loop and not self.settings.offload_encoders:
            places = [adapter.parts.where(part) for part in adapter.encoders]
            total += sum(file.stat().st_size for place in places for file in place.glob("*.safetensors"))
        return total

    def blank(self, batch: int) -> Condition:
        """Return a condition of zeros to try the teacher with, and a guidance weight if it is told one."""
        from bootdiff.teachers import blank_condition

        blank = blank_condition(self.teacher, batch)
        weight = self._weights()
        return blank if weight is None else blank.add(guidance=torch.full((batch,), weight[2]))

    @property
    def example(self) -> Condition:
        """Return one condition of the kind that there will be, to try the teacher with."""
        return self.blank(1) if self.given is None else self.given.listed(0, 0, 1)

    def make(self, folder: Path, device: torch.device | str) -> Material:
        """Return the teacher with guidance, and the conditions.

        Prompts are encoded here, into ``folder`` if they fit.

        Raises:
            BootdiffError: if an encoder is missing or damaged.
        """
        if self.given is not None:
            return Material(self.teacher, self.given)
        adapter = adapter_of(self.teacher)
        if adapter is None:
            return Material(self.teacher, Unconditional())
        conditions, null = self._described(adapter, folder, device)
        weights = self._weights()
        if weights is not None:
            conditions = Weighted(conditions, *weights)
        return Material(self._guided(null, adapter), conditions)

    def _described(
        self, adapter: Adapter, folder: Path, device: torch.device | str
    ) -> tuple[Conditions, Condition | None]:
        """Return the conditions that the settings describe, and what guidance leads away from, or None."""
        if adapter.takes == "classes":
            label = null_class(adapter, self.settings)  # guidance without one was refused
            null = None if label is None else Condition({"classes": torch.tensor([label])})
            return Classes(class_labels(adapter, self.settings)), null
        if self.prompts is None:
            return Unconditional(), None
        own = encode_prompts(self.prompts, adapter, self.settings, folder / "prompts", device)
        if self.base is None or self.base.adapter is None:
            return own.conditions, own.null
        # Both stages are told the same prompts, each as its own encoders put them.
        place = folder / "base-prompts"
        theirs = encode_prompts(self.prompts, self.base.adapter, self.settings, place, device, same=own)
        small, stage = self.base.one_step(self.base.weight()).to(device), cast("Upscaler", adapter)
        level = self.settings.noise_level
        return Cascade(own.conditions, small, theirs.conditions, self.base.shape, stage, level), own.null

    def _guided(self, null: Condition | None, adapter: Adapter) -> Teacher:
        settings = self.settings
        asked = settings.guidance_range is not None or settings.guidance_scale not in (None, 1.0)
        if adapter.guidance != "free" or not asked or null is None:
            return self.teacher
        return guided(self.teacher, null, settings.guidance_scale)

    def _weights(self) -> tuple[float, float, float] | None:
        """Return (lowest, highest, shown) of the weights that networks are told; None where none is told any."""
        learned, adapter = learned_weight(self.settings, self.teacher), adapter_of(self.teacher)
        if learned.low is None or learned.high is None or learned.middle is None:
            return None
        if learned.is_range:
            shown = self.settings.export_guidance
            return learned.low, learned.high, learned.middle if shown is None else shown
        told = adapter is not None and adapter.embedded_weight is not None
        return (learned.low, learned.low, learned.low) if told else None


def plan_conditions(
    teacher: Teacher, settings: Any, run: Run | None = None, captions: PromptFile | None = None
) -> ConditionPlan:
    """Check everything that a distillation was asked about conditions.

    Args:
        run: the run whose own copy of the prompts serves if their file has gone.
        captions: a data set's captions, which are the prompts where no others are asked for.

    Raises:
        BootdiffError: if something does not fit this teacher; the message names it, and what to give instead.
    """
    plan = ConditionPlan(teacher, settings)
    adapter = adapter_of(teacher)
    takes = "nothing" if adapter is None else adapter.takes
    check_asked(settings, takes, teacher.name)
    if adapter is None:
        check_plain(settings, teacher.name)
        return plan
    check_guidance(settings, adapter, teacher.name)
    if takes == "classes":
        class_labels(adapter, settings)
    if takes == "prompts":
        own = captions if settings.prompts is None else None
        plan = replace(plan, prompts=own or asked_prompts(settings, teacher.name, run))
    if settings.base is not None and not adapter.upscales:
        raise BootdiffError(f"--base is for super-resolution teachers; {teacher.name} is none, so leave it out.")
    if adapter.upscales:
        plan = replace(plan, base=base_stage(settings, adapter, teacher.name))
    if takes == "prompts":
        adapter.parts.check(*adapter.encoders)
    if not adapter.alone:  # all that the student's pipeline will hold, before hours are spent on it
        adapter.parts.try_out(*(part for part in adapter.parts.components if part != adapter.network_part))
    return plan


def labels_of(conditions: Conditions) -> list[int] | None:
    """Return the class labels from which conditions made in Python are drawn; None if they are no labels."""
    inner = conditions.inner if isinstance(conditions, Weighted) else conditions
    return sorted({int(label) for label in inner.labels}) if isinstance(inner, Classes) else None
