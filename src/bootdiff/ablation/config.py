"""The YAML file of an ablation: what it may say, and how it is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from bootdiff.config.teacher import TeacherOptions
from bootdiff.core.errors import BootdiffError, nearest, shown
from bootdiff.storage.reading import read_config

Values = Annotated[list[Any], Field(min_length=1)]
TrainingSeed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Calls = Annotated[int, Field(ge=1, le=1000)]
#: pydantic's names for the error of an unknown key, in a model and in a dataclass
UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Evaluation(_Part):
    """How every student is measured.

    Args:
        num: the number of samples for each noise seed.
        seed: the seed of the first noise.
        repeats: the number of noise seeds.
        features, reference: the feature space and reference of the Fréchet distance; the builtin teachers have their
            own.
        calls: the numbers of network calls at which the teacher's best sampler has a line in the table; DDIM's lines
            are always there.
    """

    num: int = Field(default=2000, ge=2)
    seed: int = Field(default=1, ge=0, le=2**62)
    repeats: int = Field(default=1, ge=1)
    features: str | None = None
    reference: str | None = None
    calls: list[Calls] = Field(default=[1, 2, 4, 10, 50], min_length=1)


class Ablation(_Part):
    """An ablation: one teacher, the settings that all variants share, and the settings that vary.

    Args:
        teacher: the teacher's name, folder or hub id.
        config: a YAML file of settings, over which ``settings`` takes precedence.
        settings: the settings of the baseline.
        vary: the values of each setting that varies alone, while the others are the baseline's.
        grid: the values of settings that are combined in every way.
        seeds: the training seeds; figures are means over them.
    """

    teacher: str
    teacher_options: TeacherOptions = TeacherOptions()
    method: str = "boot"
    config: str | None = None
    settings: dict[str, Any] = {}
    vary: dict[str, Values] = {}
    grid: dict[str, Values] = {}
    seeds: list[TrainingSeed] | None = Field(default=None, min_length=1)
    evaluate: Evaluation = Evaluation()

    @field_validator("vary", "grid")
    @classmethod
    def _no_seeds(cls, value: dict[str, Any]) -> dict[str, Any]:
        if "seed" in value:
            raise ValueError("seed does not vary a run but repeats it; give seeds: [0, 1] beside vary and grid")
        return value


def read_ablation(path: Path) -> Ablation:
    """Read and check an ablation's file; the settings themselves are checked when its variants are made.

    Raises:
        BootdiffError: in one line, if a key is unknown (the message names the nearest) or a value is of another kind.
    """
    # A key with nothing behind it is left out, as a comment would be.
    words = {key: value for key, value in read_config(path).items() if value is not None}
    try:
        ablation = Ablation.model_validate(words)
    except ValidationError as error:
        raise BootdiffError(f"{path}: {_one_line(error)}") from None
    if not ablation.vary and not ablation.grid:
        raise BootdiffError(f"{path} varies nothing; expected 'vary: {{boundary_weight: [1, 0]}}', say, or a grid.")
    return ablation


def _one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    where = [str(part) for part in first["loc"]]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return f"'{where[-1]}' is missing."
    if first["type"] in UNKNOWN:
        known = _fields(where[:-1])
        within = f" in '{where[0]}'" if len(where) > 1 else ""
        hint = nearest(where[-1], known) or f" Known keys: {', '.join(known)}."
        return f"there is no key {shown(where[-1])}{within}.{hint}"
    return f"{'.'.join(where)}: {message[0].lower() + message[1:]}, got {shown(first['input'])}."


def _fields(where: Sequence[str]) -> list[str]:
    kind: Any = Ablation
    for part in where:
        kind = kind.model_fields[part].annotation
    return list(kind.model_fields) if issubclass(kind, BaseModel) else [field.name for field in fields(kind)]
