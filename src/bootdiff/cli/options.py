"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bootdiff.builtin import BUILTIN_TEACHERS

Output = Annotated[Path, typer.Option(help="Where to write.")]
Config = Annotated[Path | None, typer.Option(help="YAML file with settings.")]
Assign = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="A setting; may be repeated.")]
Steps = Annotated[int | None, typer.Option(help="Optimiser steps.")]
Batch = Annotated[int | None, typer.Option(help="Samples a step.")]
Seed = Annotated[int | None, typer.Option(help="Seed of training.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")]
Variant = Annotated[str | None, typer.Option(help="Of the weight files, such as fp16.")]
DType = Annotated[str, typer.Option(help="What the teacher runs in: float32, float16 or bfloat16.")]
Lora = Annotated[str | None, typer.Option(help="A LoRA to add to the teacher: a file, folder or hub id.")]
LoraScale = Annotated[float, typer.Option(help="Its strength.")]
PipelineConfig = Annotated[str | None, typer.Option(help="For a single file: a pipeline with its configs.")]
Size = Annotated[int | None, typer.Option(min=1, help="Side of the images in pixels, for latent models.")]
Teacher = Annotated[
    str,
    typer.Argument(
        help=f"A folder, a single .safetensors file, a hub id, or a builtin: {', '.join(BUILTIN_TEACHERS)}."
    ),
]
Classes = Annotated[str | None, typer.Option(help="N,N,...: class labels; default: all.")]
PromptFile = Annotated[
    Path | None, typer.Option(help="A file of prompts: text, CSV, TSV, JSON, JSON lines, parquet; or digits.")
]
PromptColumn = Annotated[str | None, typer.Option(help="Of the prompts file, where it has several.")]
GuidanceScale = Annotated[float | None, typer.Option(help="Guidance weight w.")]
Refine = Annotated[
    int | None, typer.Option(min=1, max=1000, help="Teacher steps that finish the student's image: K + 1 calls.")
]
RefineFrom = Annotated[
    float | None, typer.Option(help="The time t at which the teacher takes over; default: sigma / alpha = 1/3.")
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
Clip = Annotated[str | None, typer.Option(help="A CLIP model, a folder or hub id: also measure the CLIP score.")]
Report = Annotated[str | None, typer.Option(help="Also log to tensorboard, wandb or trackio.")]


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that the user gave."""
    return {key: value for key, value in options.items() if value is not None}
