"""How a teacher is loaded: the options of ``load_teacher``, of the command line and of an ablation's file."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Annotated, Any

from pydantic import Field

_FUNCTION = re.compile(r".+\.py:[^:/\\]+")


def names_function(word: str) -> bool:
    """Return whether a teacher's name is that of a function in a Python file, such as ``module.py:function``."""
    return _FUNCTION.fullmatch(word) is not None


@dataclass(frozen=True, kw_only=True)
class TeacherOptions:
    """What may be asked of a teacher besides its name; each annotation holds the option's help."""

    # For files, whose values pydantic checks.
    __pydantic_config__ = {"extra": "forbid", "allow_inf_nan": False}  # noqa: RUF012  pydantic's own way

    revision: Annotated[str | None, "Branch, tag or commit of a hub id."] = None
    variant: Annotated[str | None, "Of the weight files, such as fp16."] = None
    dtype: Annotated[str, "What the teacher runs in: float32, float16 or bfloat16."] = "float32"
    lora: Annotated[str | None, "A LoRA to add to the teacher: a file, folder or hub id."] = None
    lora_scale: Annotated[float, "Its strength."] = 1.0
    pipeline_config: Annotated[str | None, "For a single file: a pipeline with its configs."] = None
    size: Annotated[int | None, Field(ge=1), "Side of the images in pixels, for latent models."] = None

    @property
    def options(self) -> dict[str, Any]:
        """The options that differ from their defaults, by name."""
        asked = {field.name: getattr(self, field.name) for field in fields(TeacherOptions)}
        return {field.name: asked[field.name] for field in fields(TeacherOptions) if asked[field.name] != field.default}
