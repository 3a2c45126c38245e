"""Checks of conditions that were made in Python, in place of those that settings describe."""

from __future__ import annotations

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.data.conditions import Conditions
from bootdiff.distillation.condition_checks import check_label
from bootdiff.distillation.conditioning import ConditionPlan, labels_of
from bootdiff.methods.settings import DistillationSettings
from bootdiff.teachers import Teacher, adapter_of
from bootdiff.teachers.adapters.base import Adapter
from bootdiff.teachers.guidance import guidance_of

#: the settings that describe conditions, which exclude conditions made in Python
DESCRIBED = ("prompts", "prompt_column", "classes", "null_class", "guidance_scale", "negative_prompt", "base")


def given_conditions(teacher: Teacher, settings: DistillationSettings, conditions: Conditions) -> ConditionPlan:
    """Check conditions that were made in Python, and return the plan for them.

    Raises:
        BootdiffError: if they are no conditions, lack what the teacher needs, or the settings describe others.
    """
    if not all(hasattr(conditions, name) for name in ("draw", "listed", "modules")):
        raise BootdiffError(
            f"conditions should be such as bootdiff.Classes([0, 1]), got {type(conditions).__name__}; a pipeline's "
            "prompts are the setting prompts='FILE'."
        )
    _check_settings(settings, teacher)
    example, adapter = conditions.listed(0, 0, 1), adapter_of(teacher)
    _check_entries(example, adapter, settings, teacher.name)
    if "classes" in example and adapter is not None and adapter.takes == "classes":
        for label in labels_of(conditions) or []:
            check_label(label, adapter.classes)
    return ConditionPlan(teacher, settings, given=conditions)


def _check_settings(settings: DistillationSettings, teacher: Teacher) -> None:
    """Refuse settings that describe other conditions, or a range of weights that nothing would read."""
    for name in DESCRIBED:
        if getattr(settings, name) is not None:
            raise BootdiffError(
                f"conditions= and the setting {name} exclude each other; leave one out"
                + (" (guide with bootdiff.Guided(teacher, null, weight))." if "guidance" in name else ".")
            )
    own = guidance_of(teacher)
    if settings.guidance_range is not None and (own is None or own.weight is not None):
        raise BootdiffError(
            "guidance_range with conditions= needs a teacher that reads its weight from them: "
            "bootdiff.Guided(teacher, null), with no weight."
        )


def _check_entries(example: Condition, adapter: Adapter | None, settings: DistillationSettings, name: str) -> None:
    """Refuse conditions that lack what the teacher's network reads."""
    needed = set(adapter.blank(1)) if adapter is not None else set()
    if settings.guidance_range is not None:
        needed.add("guidance")
    missing = sorted(needed - set(example))
    if missing:
        raise BootdiffError(
            f"conditions= should hold {', '.join(sorted(needed))} for {name}; {', '.join(missing)} is missing."
        )
