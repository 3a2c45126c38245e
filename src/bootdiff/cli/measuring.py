"""The commands that measure and show results: ``evaluate``, ``compare``, ``ablate`` and ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bootdiff.cli.options import (
    AllSamplers,
    Calls,
    Classes,
    Clip,
    Device,
    FirstSeed,
    GuidanceScale,
    Heun,
    LabelColumn,
    Num,
    PromptColumn,
    PromptFile,
    RefineFrom,
    Repeats,
    Revision,
    Variant,
    given,
)

app = typer.Typer()


@app.command()
def evaluate(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A run, a student, or a teacher by itself.")],
    output: Annotated[Path, typer.Option(help="A JSON file.")],
    teacher: Annotated[str | None, typer.Option(help="Where the student does not say, or another one.")] = None,
    reference: Annotated[
        str | None, typer.Option(help="Images, an .npz file of statistics or samples, digits or fashion.")
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            help="Feature space: digits, fashion, pixels, teacher (its own), an .onnx file, inception:FILE, "
            "dinov2:ID, clip:ID, or module.py:function of images."
        ),
    ] = None,
    num: Num = 2000,
    seed: FirstSeed = 0,
    repeats: Repeats = 1,
    calls: Calls = None,
    heun: Heun = True,
    path_end: Annotated[
        bool,
        typer.Option("--path-end", help="A row for the exact end of the path from the student's own t_max."),
    ] = False,
    search_times: Annotated[
        int | None,
        typer.Option(min=2, max=8, help="Search the best times of so many calls of a consistency student."),
    ] = None,
    all_samplers: AllSamplers = False,
    prompts: PromptFile = None,
    prompt_column: PromptColumn = None,
    label_column: LabelColumn = None,
    classes: Classes = None,
    guidance_scale: GuidanceScale = None,
    clip: Clip = None,
    revision: Revision = None,
    variant: Variant = None,
    dtype: Annotated[str | None, typer.Option(help="Another one than the student's teacher ran in.")] = None,
    device: Device = None,
) -> None:
    """Measure a student beside its teacher's best samplers, from the same noises; or a teacher alone."""
    from bootdiff.cli.evaluate import run_evaluate
    from bootdiff.cli.functions import named_features
    from bootdiff.cli.words import read_calls, read_labels, read_words
    from bootdiff.core.device import use_device
    from bootdiff.data.classes import read_classes
    from bootdiff.evaluation.measurement import Measurement
    from bootdiff.samplers.choice import Choice

    use_device(device)
    labels = read_labels(prompts, prompt_column, label_column)
    options = given({"revision": revision, "variant": variant, "dtype": dtype})
    choice = Choice(read_words((), prompts, prompt_column), read_classes(classes), guidance_scale)
    asked = Measurement(
        named_features(features), reference, clip, num, seed, repeats, choice, labels, read_calls(calls), heun
    )
    run_evaluate(name, asked, output, teacher, options, path_end, all_samplers, search_times)


@app.command()
def compare(
    students: Annotated[list[str], typer.Argument(help="Runs or students of one teacher.")],
    output: Annotated[Path, typer.Option(help="A folder; the same command resumes.")],
    teacher: Annotated[str | None, typer.Option(help="Where the students do not say.")] = None,
    reference: Annotated[str | None, typer.Option(help="As for evaluate.")] = None,
    features: Annotated[str | None, typer.Option(help="As for evaluate.")] = None,
    samplers: Annotated[
        list[str], typer.Option(help="'ddpm:250 unipc:7': further rows of the teacher, by sampler and steps.")
    ] = [],  # noqa: B006  typer reads the default, nobody changes it
    calls: Calls = None,
    heun: Heun = True,
    all_samplers: AllSamplers = False,
    num: Num = 2000,
    seed: FirstSeed = 0,
    repeats: Repeats = 1,
    prompts: PromptFile = None,
    prompt_column: PromptColumn = None,
    label_column: LabelColumn = None,
    classes: Classes = None,
    guidance_scale: GuidanceScale = None,
    refine: Annotated[
        str, typer.Option(metavar="K,K,...", help="Also every student with K steps of its teacher after it.")
    ] = "",
    refine_from: RefineFrom = None,
    clip: Clip = None,
    device: Device = None,
) -> None:
    """Students beside their teacher's best samplers: a table, a plot and pictures, from the same noises."""
    from bootdiff.cli.compare import run_compare
    from bootdiff.cli.functions import named_features
    from bootdiff.cli.words import read_calls, read_labels, read_words
    from bootdiff.core.device import use_device
    from bootdiff.data.classes import read_classes
    from bootdiff.evaluation.measurement import Measurement
    from bootdiff.samplers.choice import Choice

    use_device(device)
    labels = read_labels(prompts, prompt_column, label_column)
    choice = Choice(read_words((), prompts, prompt_column), read_classes(classes), guidance_scale)
    asked = Measurement(
        named_features(features), reference, clip, num, seed, repeats, choice, labels, read_calls(calls), heun
    )
    run_compare(students, teacher, asked, samplers, output, refine, refine_from, all_samplers)


@app.command()
def ablate(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML: teacher, settings, vary, grid, …")],
    output: Annotated[Path, typer.Option(help="A folder; the same command resumes.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the variants and stop.")] = False,
    device: Device = None,
) -> None:
    """One setting after another changed: a run for every variant, one table, and pictures of them all."""
    from bootdiff.cli.ablate import run_ablate
    from bootdiff.core.device import use_device

    use_device(device)
    run_ablate(config, output, dry_run)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="The --output of bootdiff distill.")],
    teacher: Annotated[str | None, typer.Option(help="Where the run does not say, or it has moved.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="FILE.html; default: in the run, of several runs report.html here.")
    ] = None,
    device: Device = None,
) -> None:
    """Verdict, samples, figures, curves and settings on one page; several runs are set side by side."""
    from bootdiff.cli.report import run_report
    from bootdiff.core.device import use_device

    use_device(device)
    run_report(runs, teacher, output)
