"""What a student says of itself in ``bootdiff.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bootdiff.core.errors import BootdiffError
from bootdiff.core.guidance import GuidanceWeight
from bootdiff.storage.files import read_json, write_json
from bootdiff.teachers.base import Origin

FILE = "bootdiff.json"
#: of the card, raised when a reader of an earlier version would understand it wrongly
FORMAT: Literal[1] = 1


class LearnedConditions(BaseModel):
    """What a distillation was asked of conditions, as far as its student must remember it.

    Args:
        labels: the classes that it learned.
        null_class: the label that stood for no class.
        negative_prompt: what guidance led away from.
        noise_level: of a super-resolution student: the timestep of the noise in the images that it enlarges.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    labels: list[int] | None = None
    null_class: int | None = None
    negative_prompt: str | None = None
    noise_level: int | None = None


class StudentCard(BaseModel):
    """What a student learned, and of which teacher; an exported student without a card has an empty one.

    Args:
        format: of the card; cards of before there was one are of the first.
        kind: of student: ``"path"`` answers for every time of its teacher's path.
        teacher: the name that ``load_teacher`` took.
        pipeline: the stock class of its pipeline; None for the student of a plain module.
        teacher_options: what ``load_teacher`` was asked beside the name.
        targets: how the targets' x_0 was limited, as a scheduler's fields, where that is not as its images are.
        guidance: the guidance weight, or [lowest, highest].
        folded_weight: of an export: the weight of that range that is in its network.
        t_min, t_max: the path's ends that it learned.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)

    format: Annotated[int, Field(ge=1, le=FORMAT)] = FORMAT
    kind: Literal["path"] = "path"
    teacher: str | None = None
    pipeline: str | None = None
    teacher_options: dict[str, Any] = Field(default_factory=dict)
    targets: dict[str, Any] | None = None
    guidance: float | list[float] | None = None
    conditions: LearnedConditions = Field(default_factory=LearnedConditions)
    t_min: float | None = None
    t_max: float | None = None
    folded_weight: float | None = None

    @property
    def weight(self) -> GuidanceWeight:
        """What it learned of the guidance weight."""
        return GuidanceWeight.of(self.guidance)

    @property
    def origin(self) -> Origin:
        """Its teacher, so that it can be loaded again."""
        return Origin(str(self.teacher), **self.teacher_options)

    @property
    def times(self) -> tuple[float, float]:
        """(t_min, t_max) of a card that was read."""
        assert self.t_min is not None and self.t_max is not None, "read_card makes sure of them"
        return self.t_min, self.t_max

    @property
    def as_json(self) -> dict[str, Any]:
        """What the file holds: everything that it says."""
        words = self.model_dump(exclude_none=True)
        return {key: value for key, value in words.items() if value != {}}


def write_card(card: StudentCard, folder: Path) -> None:
    """``bootdiff.json`` in ``folder``."""
    write_json(folder / FILE, card.as_json)


def read_card(folder: Path) -> StudentCard:
    """The card in ``folder``.

    Raises:
        BootdiffError: naming what it lacks, or what is of another kind.
    """
    path = folder / FILE
    words = read_json(path)
    missing = next((key for key in ("teacher", "t_min", "t_max") if words.get(key) is None), None)
    if missing is not None:
        raise BootdiffError(f"{path}: '{missing}' is missing; it is damaged, so repeat the run's command.")
    if isinstance(words.get("format"), int) and words["format"] > FORMAT:
        raise BootdiffError(f"{path} was written by a later version of bootdiff; open it with that one.")
    try:
        card = StudentCard.model_validate(words)
    except ValidationError as error:
        raise BootdiffError(f"{path}: {_first(error)}; it is damaged, so repeat the run's command.") from None
    unknown = set(card.teacher_options) - (set(Origin.__dataclass_fields__) - {"name"})
    if unknown:
        raise BootdiffError(f"{path}: teacher_options holds '{unknown.pop()}', which is none; repeat its command.")
    return card


def _first(error: ValidationError) -> str:
    """The first thing that is wrong with a card."""
    first = error.errors()[0]
    message = first["msg"]
    return f"'{first['loc'][0]}': {message[0].lower()}{message[1:]}"
