"""The card of a student, ``bootdiff.json``: what it learned, and of which teacher."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from bootdiff.core.errors import BootdiffError, shown
from bootdiff.core.guidance import GuidanceWeight
from bootdiff.storage.files import read_json, write_json
from bootdiff.teachers.base import Origin
from bootdiff.teachers.limits import limit_from
from bootdiff.teachers.loading.load import DTYPES

FILE = "bootdiff.json"
#: the number of the card's format, raised when an earlier version of bootdiff would misunderstand a new card
FORMAT: Literal[1] = 1
_ORIGIN = TypeAdapter(Origin)


class LearnedConditions(BaseModel):
    """What a distillation was asked about conditions, as far as its student must remember it.

    Args:
        labels: the classes that the student learned.
        null_class: the label that stood for no class.
        negative_prompt: what guidance led away from.
        noise_level: for a super-resolution student, the timestep of the noise in the images that it enlarges.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    labels: list[int] | None = None
    null_class: int | None = None
    negative_prompt: str | None = None
    noise_level: int | None = None


class StudentCard(BaseModel):
    """What a student learned, and of which teacher.

    An exported student without a card counts as having an empty one.

    Args:
        format: the number of the card's format; cards without a number have the first one.
        kind: the kind of student; cards without one are of path students.
        facts: what only this kind of student must remember.
        teacher: the name of the teacher that ``load_teacher`` took.
        pipeline: the stock class of its pipeline; None for the student of a plain module.
        teacher_options: the options that ``load_teacher`` was given besides the name.
        targets: how the targets' x_0 was limited, as a scheduler's fields, where it differs from the limit of its
            images.
        guidance: the guidance weight, or the range [lowest, highest] of weights; None where it learned no guidance.
        folded_weight: for an export, the weight of that range that is in its network.
        t_min, t_max: the ends of the path that it learned, in [0, 1].
        calls: the number of calls in which its images are usually made.
        any_calls: whether it, or the pipeline of an export, can be asked for other numbers of calls.
        data_free: whether it learned from noise and its teacher alone; cards of earlier versions do not say it, and
            their students did.
        architecture: the class and the size of a network of another architecture than the teacher's; None for the
            teacher's.
        teacher_free: whether its training made no pass of the teacher, and took architecture and schedule only.
    """

    # Strict: a card is written by us alone, so a number that is a word there was put there by hand.
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, strict=True)

    format: Annotated[int, Field(ge=1, le=FORMAT)] = FORMAT
    kind: str = "path"
    facts: dict[str, Any] = Field(default_factory=dict)
    teacher: str | None = None
    pipeline: str | None = None
    teacher_options: dict[str, Any] = Field(default_factory=dict)
    targets: dict[str, Any] | None = None
    guidance: float | Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    conditions: LearnedConditions = Field(default_factory=LearnedConditions)
    t_min: float | None = None
    t_max: float | None = None
    folded_weight: float | None = None
    calls: Annotated[int, Field(ge=1, le=1000)] = 1
    any_calls: bool = False
    data_free: bool = True
    architecture: str | None = None
    teacher_free: bool = False

    @model_validator(mode="after")
    def _has_a_path(self) -> StudentCard:
        if self.t_min is not None and self.t_max is not None and not 0 <= self.t_min < self.t_max <= 1:
            raise ValueError(f"t_min and t_max should rise within 0 to 1, got {self.t_min:g} and {self.t_max:g}")
        return self

    @model_validator(mode="after")
    def _folds_a_weight_of_its_range(self) -> StudentCard:
        if self.folded_weight is not None and not isinstance(self.guidance, list):
            raise ValueError("folded_weight belongs to a guidance of two weights")
        return self

    @field_validator("guidance")
    @classmethod
    def _rises(cls, guidance: float | list[float] | None) -> float | list[float] | None:
        if isinstance(guidance, list) and sorted(guidance) != guidance:
            raise ValueError(f"should be one weight, or a lower and a higher one, got {shown(guidance)}")
        return guidance

    @field_validator("teacher_options")
    @classmethod
    def _loads_a_teacher(cls, options: dict[str, Any]) -> dict[str, Any]:
        unknown = sorted(set(options) - (set(Origin.__dataclass_fields__) - {"name"}))
        if unknown:
            raise ValueError(f"holds {shown(unknown[0])}, which is none")
        origin = _ORIGIN.validate_json(json.dumps({"name": "", **options}), strict=True)
        if origin.dtype not in DTYPES:
            raise ValueError(f"holds the dtype {shown(origin.dtype)}; expected one of {', '.join(DTYPES)}")
        return {key: getattr(origin, key) for key in options}

    @field_validator("targets")
    @classmethod
    def _limits_targets(cls, fields: dict[str, Any] | None) -> dict[str, Any] | None:
        if fields is not None:
            limit_from(fields)
        return fields

    @property
    def weight(self) -> GuidanceWeight:
        """The guidance weight that the student learned: none, one, or a range."""
        return GuidanceWeight.of(self.guidance)

    @property
    def most_calls(self) -> int | None:
        """The largest number of calls of an exported consistency student; None if any will do."""
        points, boundary = self.facts.get("points"), self.facts.get("boundary")
        if not isinstance(points, int):
            return None
        # The last of EDM's noise levels is that of t_min, where there is nothing left to ask.
        return points - (isinstance(boundary, dict) and boundary.get("name") == "karras")

    @property
    def origin(self) -> Origin:
        """Where the student's teacher comes from, so that it can be loaded again."""
        return Origin(str(self.teacher), **self.teacher_options)

    @property
    def times(self) -> tuple[float, float]:
        """The ends (t_min, t_max) of the path, on a card that was read from a file."""
        assert self.t_min is not None and self.t_max is not None, "read_card makes sure of them"
        return self.t_min, self.t_max

    @property
    def as_json(self) -> dict[str, Any]:
        """The content of the card's file: every entry that is not empty."""
        words = self.model_dump(exclude_none=True)
        usual = {"calls": 1, "any_calls": False}  # which earlier versions' cards do not hold
        return {key: value for key, value in words.items() if value != {} and usual.get(key) != value}


def new_card(**words: Any) -> StudentCard:
    """Return a card that holds these entries.

    Raises:
        BootdiffError: if an entry is of a wrong kind; the message names it.
    """
    try:
        return StudentCard.model_validate(words)
    except ValidationError as error:
        raise BootdiffError(f"a student's card cannot hold {_first(error)}.") from None


def write_card(card: StudentCard, folder: Path) -> None:
    """Write the card to ``bootdiff.json`` in ``folder``."""
    write_json(folder / FILE, card.as_json)


def damaged(path: Path, what: object) -> BootdiffError:
    """Return the error of a student's file that holds what bootdiff never writes there."""
    return BootdiffError(f"{path}: {what}; it is damaged, so repeat the run's command.")


def read_card(folder: Path) -> StudentCard:
    """Return the card in ``folder``.

    Raises:
        BootdiffError: if an entry is missing or of a wrong kind; the message names it.
    """
    path = folder / FILE
    words = read_json(path, cure="it is damaged, so repeat the run's command")
    missing = next((key for key in ("teacher", "t_min", "t_max") if words.get(key) is None), None)
    if missing is not None:
        raise damaged(path, f"'{missing}' is missing")
    if isinstance(words.get("format"), int) and words["format"] > FORMAT:
        raise BootdiffError(f"{path} was written by a later version of bootdiff; open it with that one.")
    try:
        return StudentCard.model_validate(words)
    except ValidationError as error:
        raise damaged(path, _first(error)) from None


def _first(error: ValidationError) -> str:
    """Return a message on the first thing that is wrong with a card."""
    first = error.errors()[0]
    inner = first.get("ctx", {}).get("error")
    message = _first(inner) if isinstance(inner, ValidationError) else first["msg"].removeprefix("Value error, ")
    where = ".".join(map(str, first["loc"])) or "card"
    return f"'{where}': {message[0].lower()}{message[1:]}"
