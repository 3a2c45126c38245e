"""The options that several commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer

from bootdiff.builtin import BUILTIN_TEACHERS
from bootdiff.config.teacher import TeacherOptions

Output = Annotated[Path, typer.Option(help="Where to write.")]
Config = Annotated[Path | None, typer.Option(help="YAML file with settings.")]
Assign = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="A setting; may be repeated.")]
Steps = Annotated[int | None, typer.Option(help="Optimiser steps.")]
Batch = Annotated[int | None, typer.Option(help="Samples a step.")]
Seed = Annotated[int | None, typer.Option(help="Seed of training.")]
_HINTS = get_type_hints(TeacherOptions, include_extras=True)
Revision = Annotated[str | None, typer.Option(help=get_args(_HINTS["revision"])[-1])]
Variant = Annotated[str | None, typer.Option(help=get_args(_HINTS["variant"])[-1])]
Teacher = Annotated[
    str,
    typer.Argument(
        help="A folder, a single .safetensors file, a hub id, module.py:function that returns a teacher, or a "
        f"builtin: {', '.join(BUILTIN_TEACHERS)}."
    ),
]
Classes = Annotated[str | None, typer.Option(help="N,N,...: class labels; default: all.")]
PromptFile = Annotated[
    Path | None,
    typer.Option(
        help="A file of prompts: text, CSV, TSV, JSON, JSON lines, parquet, COCO's captions; hf:NAME or hf:NAME/FILE "
        "of the hub; or digits."
    ),
]
PromptColumn = Annotated[str | None, typer.Option(help="Of the prompts file, where it has several.")]
GuidanceScale = Annotated[float | None, typer.Option(help="Guidance weight w.")]
Refine = Annotated[
    int | None, typer.Option(min=1, max=1000, help="Teacher steps that finish the student's image: K + 1 calls.")
]
RefineFrom = Annotated[
    float | None, typer.Option(help="The time t at which the teacher takes over; default: sigma / alpha = 1/3.")
]
Device = Annotated[
    str | None,
    typer.Option(help="cpu, cuda, cuda:1 or mps, for sampling and measuring; default: the best that there is."),
]
# torchrun takes --num for the beginning of an option of its own.
Num = Annotated[int, typer.Option("--num", "--num-samples", min=2, help="Samples a noise seed.")]
Calls = Annotated[
    str | None, typer.Option(metavar="K,K,...", help="Network calls at which the teacher's best sampler is looked for.")
]
Heun = Annotated[bool, typer.Option(help="A row for the exact end of the teacher's path, 50 Heun steps.")]
AllSamplers = Annotated[
    bool, typer.Option("--all-samplers", help="Show every measured row, and what the teacher's best was chosen from.")
]
FirstSeed = Annotated[int, typer.Option(min=0, max=2**62, help="Seed of the first noise.")]
Repeats = Annotated[int, typer.Option(min=1, help="Noise seeds; figures are means over them.")]
LabelColumn = Annotated[str | None, typer.Option(help="Of the prompts file: the class that each prompt asks for.")]
Clip = Annotated[str | None, typer.Option(help="A CLIP model, a folder or hub id: also measure the CLIP score.")]
Report = Annotated[str | None, typer.Option(help="Also log to tensorboard, wandb or trackio.")]


def loading(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with an option for each field of its parameter ``loaded: TeacherOptions``."""
    signature = inspect.signature(command, eval_str=True)
    parameters = list(signature.parameters.values())
    place = next(place for place, parameter in enumerate(parameters) if parameter.name == "loaded")
    parameters[place : place + 1] = [
        inspect.Parameter(field.name, parameters[place].kind, default=field.default, annotation=_option(field.name))
        for field in fields(TeacherOptions)
    ]

    @wraps(command)
    def with_options(**words: Any) -> None:
        loaded = TeacherOptions(**{field.name: words.pop(field.name) for field in fields(TeacherOptions)})
        command(**words, loaded=loaded)

    with_options.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return with_options


def _option(name: str) -> Any:
    kind, *rules, words = get_args(_HINTS[name])
    least = next((bound.ge for rule in rules for bound in rule.metadata), None)  # of pydantic's Field
    return Annotated[kind, typer.Option(help=words, min=least)]


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that the user gave, without those that are None."""
    return {key: value for key, value in options.items() if value is not None}
