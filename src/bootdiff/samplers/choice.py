"""What samples the user asks for (prompts, classes, a guidance weight), and the conditions that these become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bootdiff.core.device import best_device
from bootdiff.core.errors import BootdiffError
from bootdiff.data.conditions import Classes, Conditions, Prompts, Unconditional, Weighted
from bootdiff.samplers.base import Told
from bootdiff.students.card import StudentCard
from bootdiff.teachers.adapters.base import Adapter
from bootdiff.teachers.encoding import PromptEncoder


@dataclass(frozen=True)
class Choice:
    """What samples the user asks for.

    Args:
        prompts, classes: the conditions to sample, one after the other; by default the run's prompts, or all classes.
        weight: the guidance weight, for a student that learned a range; the range's middle by default.
        negative: the prompt that guidance leads away from. A student learned one, and can be asked for that one only.
    """

    prompts: Sequence[str] | None = None
    classes: Sequence[int] | None = None
    weight: float | None = None
    negative: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.prompts, str):
            object.__setattr__(self, "prompts", [self.prompts])


ANY = Choice()


def conditions_for(sampler: Told, card: StudentCard, choice: Choice = ANY) -> Conditions:
    """Return the conditions of a sampler's samples, by the sample's number.

    Args:
        card: the student's card, which says what classes it learned.

    Raises:
        BootdiffError: if the choice means nothing to this student, or lacks what the student needs.
    """
    adapter = sampler.adapter
    takes = adapter.takes if adapter is not None else "nothing"
    if choice.prompts is not None and takes != "prompts":
        raise BootdiffError(f"this student is conditioned on {takes}, not on prompts; leave them out.")
    if choice.classes is not None and takes != "classes":
        raise BootdiffError(f"this student is conditioned on {takes}, not on classes; leave them out.")
    learned = card.conditions.negative_prompt
    if choice.negative is not None and choice.negative != (learned or ""):
        words = f"'{learned}'" if learned else "none"
        raise BootdiffError(
            f"the negative prompt is learned with the student, which learned {words}; distil again with "
            f"--negative-prompt '{choice.negative}'."
        )
    conditions: Conditions = Unconditional()
    if adapter is not None and takes == "classes":
        conditions = Classes(_labels(adapter, card.conditions.labels, choice.classes))
    elif adapter is not None and takes == "prompts":
        if choice.prompts is None:
            raise BootdiffError("this student is conditioned on text; give --prompt TEXT or --prompts FILE.")
        encoder, prompts = PromptEncoder(adapter, best_device()), list(choice.prompts)
        conditions = Prompts(len(prompts), lambda numbers: encoder([prompts[n] for n in numbers]))
    told = sampler.told_weight(choice.weight)
    return conditions if told is None else Weighted(conditions, told, told, told)


def _labels(adapter: Adapter, learned: Sequence[int] | None, asked: Sequence[int] | None) -> list[int]:
    learned = learned or list(range(adapter.classes))
    for label in asked or []:
        if label not in learned:
            raise BootdiffError(f"class {label} is none that this student learned: {_span(learned)}.")
    return list(asked or learned)


def _span(labels: Sequence[int]) -> str:
    """Return labels as text: all of them up to twelve, and otherwise the first and the last."""
    return ", ".join(map(str, labels)) if len(labels) <= 12 else f"{labels[0]} … {labels[-1]}"
