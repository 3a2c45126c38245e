"""What all settings have in common: they are frozen, and whatever they refuse, they refuse in one line."""

from __future__ import annotations

from typing import Any, Literal, Self, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from bootdiff.core.errors import BootdiffError, nearest, shown


class Settings(BaseModel):
    """The base of every group of settings.

    A method's settings class lists the groups that it has. Pydantic puts the fields of the last group first.

    A check of several fields (``model_validator(mode="after")``) raises a ``BootdiffError`` itself.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    # Not in an __init__, which would hide the settings' names from editors and type checkers.
    @model_validator(mode="wrap")
    @classmethod
    def _refused_in_one_line(cls, values: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        # Pydantic's report has many lines; ours names the setting in one, from Python as from the command line.
        try:
            return validate(values)
        except ValidationError as error:
            raise BootdiffError(_one_line(cls, error)) from None

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        # Pydantic takes true for 1, which nobody means.
        among = value.values() if isinstance(value, dict) else value
        among = among if isinstance(value, list | tuple | set | frozenset | dict) else [value]
        if any(isinstance(one, bool) for one in among) and not _takes_bool(cls, str(info.field_name)):
            raise ValueError("should not be true or false")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _within_64_bits(cls, value: Any) -> Any:
        if isinstance(value, int) and abs(value) >= 2**63:
            raise ValueError("should be an integer of 64 bits")
        return value


def _takes_bool(kind: type[BaseModel], name: str) -> bool:
    """Return whether a field's type has bool, or anything at all, somewhere within."""
    open_types, found = [kind.model_fields[name].annotation], False
    while open_types and not found:
        one = open_types.pop()
        literal = get_origin(one) is Literal
        found = one in (bool, object, Any) or (literal and any(isinstance(word, bool) for word in get_args(one)))
        open_types += [] if literal else get_args(one)
    return found


def yaml_no(value: Any) -> Any:
    """Return "no" for False: YAML 1.1 reads an unquoted no as false, and some settings have the choice ``no``."""
    return "no" if value is False else value


def _one_line(kind: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return f"{message}."
    key = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        if isinstance(first["input"], dict):
            return f"there is no stage {shown(key)}, and so no setting of it."
        hint = nearest(key, kind.model_fields) or " The command's --help lists the settings."
        return f"there is no setting {shown(key)}.{hint}"
    return f"setting {key}: {message[0].lower() + message[1:]}, got {shown(first['input'])}."
