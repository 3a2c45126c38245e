"""The commands that measure and show results: ``evaluate``, ``compare``, ``ablate``, ``benchmark`` and ``report``."""

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
    Teacher,
    Variant,
    given,
    loading,
)
from bootdiff.config.teacher import TeacherOptions

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
@loading
def benchmark(
    teacher: Teacher,
    output: Annotated[Path, typer.Option(help="A folder; the same command resumes, and more methods may be added.")],
    methods: Annotated[
        str | None,
        typer.Option(metavar="METHOD,…", help="As for distill; default: all whose recipes ship and that fit."),
    ] = None,
    passes: Annotated[int | None, typer.Option(min=1, help="The budget of each run in network passes.")] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="The budget of each run in minutes of training: a second table.")
    ] = None,
    training_seeds: Annotated[str, typer.Option(metavar="N,N,...", help="Seeds of training; rows are means.")] = "0",
    assign: Annotated[
        list[str], typer.Option("--set", metavar="METHOD.KEY=VALUE", help="A setting of a method; may be repeated.")
    ] = [],  # noqa: B006  typer reads it, nobody changes it
    recipes: Annotated[
        Path | None, typer.Option(help="A folder with files METHOD.yaml, which win over the settings that ship.")
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="For methods that learn from images; else they are left out."),
    ] = None,
    prompts: PromptFile = None,
    prompt_column: PromptColumn = None,
    label_column: LabelColumn = None,
    classes: Classes = None,
    null_class: Annotated[int | None, typer.Option(help="The label that stands for no class.")] = None,
    guidance_scale: GuidanceScale = None,
    reference: Annotated[str | None, typer.Option(help="As for evaluate.")] = None,
    features: Annotated[str | None, typer.Option(help="As for evaluate.")] = None,
    clip: Clip = None,
    calls: Calls = None,
    num: Num = 2000,
    seed: FirstSeed = 0,
    repeats: Repeats = 1,
    loaded: TeacherOptions = TeacherOptions(),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs and stop.")] = False,
    device: Device = None,
) -> None:
    """Several methods with one budget each: a run for every method, one table, a plot and a picture."""
    from bootdiff.benchmark.plan import Asked
    from bootdiff.cli.benchmark import read_assigned, read_methods, read_seeds, run_benchmark
    from bootdiff.cli.functions import named_features, named_teacher
    from bootdiff.cli.words import read_calls, read_labels
    from bootdiff.core.device import use_device
    from bootdiff.data.classes import read_classes
    from bootdiff.evaluation.measurement import Measurement

    use_device(device)
    model = named_teacher(teacher)
    shared = {
        "images": images,
        "prompts": None if prompts is None else str(prompts),
        "prompt_column": prompt_column,
        "classes": read_classes(classes),
        "null_class": null_class,
        "guidance_scale": guidance_scale,
    }
    labels = read_labels(prompts, prompt_column, label_column)
    asked_of = (named_features(features), reference, clip, num, seed, repeats)
    measured = Measurement(*asked_of, labels=labels, calls=read_calls(calls), heun=False)
    run_benchmark(
        Asked(
            teacher,
            output,
            None if isinstance(model, str) else model,
            read_methods(methods),
            passes,
            minutes,
            read_seeds(training_seeds),
            given(shared),
            read_assigned(assign),
            recipes,
            loaded,
            measured,
        ),
        dry_run,
    )


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
