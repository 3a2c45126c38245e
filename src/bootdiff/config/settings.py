"""Settings of a run: what YAML files and ``--set key=value`` may say, with defaults, ranges and meanings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from bootdiff.core.errors import BootdiffError, first_line, nearest, shown
from bootdiff.storage.reading import parse_yaml

S = TypeVar("S", bound="TrainingSettings")

#: of a setting's name: a stage, a setting, and what it holds
MOST_PARTS = 4


class TrainingSettings(BaseModel):
    """What every training run has, whatever its method."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        # pydantic's report has many lines; ours names the setting in one, from Python as from the command line.
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise BootdiffError(_one_line(type(self), error)) from None

    steps: int = Field(3000, ge=1, description="optimiser steps")
    batch_size: int = Field(128, ge=1, description="samples a step, over all processes and accumulation steps")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="of every random value in training")
    learning_rate: float = Field(1e-4, gt=0, le=1, description="AdamW's rate")
    lr_schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="how the rate falls to 0")
    warmup_steps: int = Field(0, ge=0, description="steps over which the rate rises from 0")
    weight_decay: float = Field(0.0, ge=0, le=100, description="AdamW's")
    ema_decay: float = Field(
        0.9999,
        ge=0,
        lt=1,
        description="of the averaged weights that are sampled, reached by (1 + n) / (10 + n); 0 = none",
    )
    gradient_clip: float = Field(1.0, ge=0, description="largest gradient norm; 0 = no clipping")
    gradient_accumulation: int = Field(1, ge=1, description="passes a step is split into, to save memory")
    mixed_precision: Literal["no", "fp16", "bf16"] = Field("no", description="autocast of the networks")

    @field_validator("mixed_precision", "with_student", mode="before", check_fields=False)
    @classmethod
    def _yaml_no(cls, value: Any) -> Any:
        return "no" if value is False else value  # YAML 1.1 reads an unquoted no as false

    @field_validator("*", mode="before")
    @classmethod
    def _within_64_bits(cls, value: Any) -> Any:
        if isinstance(value, int) and abs(value) >= 2**63:
            raise ValueError("should be an integer of 64 bits")
        return value

    gradient_checkpointing: bool = Field(False, description="compute activations twice instead of keeping them")
    compile: bool = Field(False, description="torch.compile the diffusers networks: a minute of waiting, then faster")
    log_every: int = Field(20, ge=1, description="steps between log lines")
    sample_every: int = Field(500, ge=0, description="steps between sample grids; 0 = none")
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")
    keep_last: int = Field(2, ge=1, description="checkpoints that are kept")


def read_assignments(assignments: list[str]) -> dict[str, Any]:
    """``key=value`` words, the values read as YAML; ``stage.key=value`` is a setting of an earlier stage.

    Raises:
        BootdiffError: for a word without ``=``.
    """
    values: dict[str, Any] = {}
    for word in assignments:
        key, equals, value = word.partition("=")
        parts = [part.strip() for part in key.split(".")]
        if not equals or not all(parts) or len(parts) > MOST_PARTS:
            raise BootdiffError(f"--set expects key=value, or stage.key=value, got {shown(word)}.")
        try:
            read = parse_yaml(value)
        except ValueError as error:
            raise BootdiffError(f"--set {shown(key)}: its value cannot be read ({first_line(error)}).") from error
        _put(values, parts, _number(read))
    return values


def read_command(assignments: list[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """What a command line says: its ``--set`` words and its options, which must not contradict each other.

    Args:
        options: by the names of their settings; those that were given.

    Raises:
        BootdiffError: where both give a setting, and not the same value.
    """
    values = read_assignments(assignments)
    for key, value in options.items():
        if key in values and values[key] != value:
            raise BootdiffError(
                f"--{key.replace('_', '-')} gives {shown(value)} and --set {key} gives {shown(values[key])}; both are "
                "the same setting, so leave one out."
            )
    return {**values, **options}


def make_settings(kind: type[S], *layers: Mapping[str, Any]) -> S:
    """Settings from layers of values; later layers win, as a command line does over a file.

    Raises:
        BootdiffError: for an unknown key (naming the nearest) or a value out of range (naming key, value and rule).
    """
    values: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            there = values.get(str(key))
            if isinstance(there, dict) and isinstance(value, Mapping):
                value = {**there, **value}
            values[str(key)] = _number(value)
    return kind(**values)


def describe(kind: type[TrainingSettings]) -> list[tuple[str, str, str]]:
    """(key, default, meaning) of every setting."""
    rows = []
    for name, entry in kind.model_fields.items():
        choices = getattr(entry.annotation, "__args__", ())
        words = f" ({', '.join(choices)})" if choices and all(isinstance(c, str) for c in choices) else ""
        own = "teacher's" if name in ("t_min", "t_max") else "none"
        value = entry.get_default(call_default_factory=True)
        default = own if value is None or value == {} else f"{value}"
        rows.append((name, default, f"{entry.description}{words}"))
    return rows


def _put(values: dict[str, Any], path: list[str], value: Any) -> None:
    """Set a nested value.

    Raises:
        BootdiffError: if one assignment makes a value of what another makes a stage, or gives another value.
    """
    for part in path[:-1]:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise BootdiffError(
                f"--set gives {shown(part)} a value and {shown('.'.join(path))} one, too; leave one out."
            )
    if isinstance(values.get(path[-1]), dict) and not isinstance(value, dict):
        raise BootdiffError(f"--set gives {shown('.'.join(path))} a value and its parts others; leave one out.")
    if path[-1] in values and values[path[-1]] != value:
        both = f"{shown(values[path[-1]])} and {shown(value)}"
        raise BootdiffError(f"--set gives {shown('.'.join(path))} the values {both}; leave one out.")
    values[path[-1]] = value


def _number(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _number(inner) for key, inner in value.items()}
    # YAML 1.1 reads 1e-4, without a dot, as a string.
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _one_line(kind: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return f"{message}."
    key = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        hint = nearest(key, kind.model_fields) or " The command's --help lists the settings."
        return f"there is no setting {shown(key)}.{hint}"
    return f"setting {key}: {message[0].lower() + message[1:]}, got {shown(first['input'])}."
