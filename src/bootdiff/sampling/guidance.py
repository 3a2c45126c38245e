"""How a teacher gets the guidance that its student learned."""

from __future__ import annotations

import torch

from bootdiff.core.condition import Condition
from bootdiff.core.device import best_device
from bootdiff.core.errors import BootdiffError
from bootdiff.samplers.base import Told
from bootdiff.students.card import StudentCard
from bootdiff.teachers import Teacher, adapter_of, guided
from bootdiff.teachers.encoding import PromptEncoder


def with_guidance(teacher: Teacher, sampler: Told, card: StudentCard, weight: float | None) -> Teacher:
    """Return the teacher with the guidance that its student learned, at the weight that is sampled."""
    learned, adapter = card.weight, adapter_of(teacher)
    if adapter is None or adapter.guidance != "free" or not learned.guides:
        return teacher
    here = learned.fixed
    if learned.is_range:
        here = sampler.told_weight(weight) if card.folded_weight is None else card.folded_weight
    if here == 1:  # one pass says the same
        return teacher
    known = card.conditions
    if adapter.takes == "classes":
        if known.null_class is None:
            raise BootdiffError(
                f"the student of {card.teacher} learned guidance, but its bootdiff.json names no null_class "
                "among its conditions; repeat the run's command to write it anew."
            )
        return guided(teacher, Condition({"classes": torch.tensor([known.null_class])}), here)
    null = PromptEncoder(adapter, best_device()).negative(known.negative_prompt)
    return guided(teacher, null, here)
