"""The ``bootdiff`` command. Heavy imports happen inside the commands, so that ``--help`` answers at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bootdiff.cli.help import DistillCommand, TeachCommand
from bootdiff.errors import BootdiffError, Interrupted

app = typer.Typer(
    name="bootdiff",
    help="Distil a pretrained diffusion model into one network call, without its training data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

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
    str, typer.Argument(help="A folder, a builtin name (digits, …), a single .safetensors file or a hub id.")
]
Classes = Annotated[str | None, typer.Option(help="N,N,...: class labels; default: all.")]
PromptFile = Annotated[
    Path | None, typer.Option(help="A file of prompts: text, CSV, TSV, JSON, JSON lines, parquet; or digits.")
]
PromptColumn = Annotated[str | None, typer.Option(help="Of the prompts file, where it has several.")]
GuidanceScale = Annotated[float | None, typer.Option(help="Guidance weight w.")]
# torchrun takes --num for the beginning of an option of its own.
Num = Annotated[int, typer.Option("--num", "--num-samples", min=2, help="Samples a noise seed.")]
Clip = Annotated[str | None, typer.Option(help="A CLIP model, a folder or hub id: also measure the CLIP score.")]
Report = Annotated[str | None, typer.Option(help="Also log to tensorboard, wandb or trackio.")]


@app.command()
def quickstart(output: Output = Path("runs/quickstart")) -> None:
    """Distil the builtin digits teacher, measure it and write a report: five minutes on a laptop."""
    from bootdiff.cli.quickstart import run_quickstart

    run_quickstart(output)


@app.command()
def inspect(
    teacher: Teacher,
    revision: Revision = None,
    variant: Variant = None,
    dtype: DType = "float32",
    lora: Lora = None,
    lora_scale: LoraScale = 1.0,
    pipeline_config: PipelineConfig = None,
    size: Size = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What a teacher is, whether it is supported, and what distilling it costs."""
    from bootdiff.cli.inspect import print_inspection
    from bootdiff.teachers import load_teacher

    loaded = load_teacher(teacher, revision, variant, dtype, lora, lora_scale, pipeline_config, size)
    print_inspection(loaded, json)


@app.command(cls=DistillCommand)
def distill(
    teacher: Teacher,
    output: Annotated[Path, typer.Option(help="The run's folder; the same command resumes it.")],
    method: Annotated[str, typer.Option(help="With --help: list this method's settings.")] = "boot",
    config: Config = None,
    assign: Assign = [],  # noqa: B006  typer reads it, nobody changes it
    steps: Steps = None,
    batch_size: Batch = None,
    seed: Seed = None,
    prompts: PromptFile = None,
    prompt_column: PromptColumn = None,
    classes: Classes = None,
    null_class: Annotated[int | None, typer.Option(help="The label that stands for no class.")] = None,
    guidance_scale: GuidanceScale = None,
    guidance_range: Annotated[
        tuple[float, float] | None, typer.Option(metavar="MIN MAX", help="The student takes w as an input.")
    ] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What guidance leads away from.")] = None,
    base: Annotated[str | None, typer.Option(help="For a super-resolution teacher: its base stage's run.")] = None,
    revision: Revision = None,
    variant: Variant = None,
    dtype: DType = "float32",
    lora: Lora = None,
    lora_scale: LoraScale = 1.0,
    pipeline_config: PipelineConfig = None,
    size: Size = None,
    report_to: Report = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the resolved plan and stop.")] = False,
) -> None:
    """Distil a teacher into a one-step student."""
    from bootdiff.cli.distill import run_distill
    from bootdiff.cli.sample import read_classes

    options = {
        "steps": steps,
        "batch_size": batch_size,
        "seed": seed,
        "prompts": None if prompts is None else str(prompts),
        "prompt_column": prompt_column,
        "classes": read_classes(classes),
        "null_class": null_class,
        "guidance_scale": guidance_scale,
        "guidance_range": None if guidance_range is None else list(guidance_range),
        "negative_prompt": negative_prompt,
        "base": base,
    }
    origin = {
        "revision": revision,
        "variant": variant,
        "dtype": dtype,
        "lora": lora,
        "lora_scale": lora_scale,
        "pipeline_config": pipeline_config,
        "size": size,
    }
    tracker = _tracker(report_to)
    run_distill(teacher, output, method, config, assign, _given(options), tracker, dry_run, _given(origin))


@app.command()
def sample(
    student: Annotated[
        list[str], typer.Argument(help="A run, a student-path folder or an exported student; for a cascade, two.")
    ],
    output: Annotated[Path, typer.Option(help="FILE.png for a grid, or a new folder for one file a sample.")],
    num: Annotated[int, typer.Option(min=1, help="How many samples.")] = 16,
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Sample i starts from the noise of seed + i.")] = 0,
    times: Annotated[str | None, typer.Option(help="T,T,...: y_t along the path, a row a noise.")] = None,
    prompt: Annotated[list[str], typer.Option(help="A prompt; may be repeated.")] = [],  # noqa: B006  as above
    prompts: PromptFile = None,
    prompt_column: PromptColumn = None,
    swap: Annotated[
        str | None, typer.Option(help="'a {bold,thin} {one,two}': a row a noise, a column a prompt.")
    ] = None,
    negative_prompt: Annotated[
        str | None, typer.Option(help="As the student learned it; it cannot take another.")
    ] = None,
    classes: Annotated[str | None, typer.Option("--classes", "--class", help="N,N,...; default: all.")] = None,
    guidance_scale: GuidanceScale = None,
    interpolate: Annotated[
        tuple[int, int] | None, typer.Option(metavar="SEED SEED", help="A row of --num images between two noises.")
    ] = None,
    linear: Annotated[bool, typer.Option("--linear", help="Interpolate on a line, not on the sphere.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples a network call.")] = 256,
) -> None:
    """Draw samples in one network call each; a base stage and its super-resolution stage make two."""
    from bootdiff.cli.sample import Wanted, check_layout, read_classes, read_words, run_sample
    from bootdiff.pipelines.samplers import Choice

    words = read_words(prompt, prompts, prompt_column, swap)
    check_layout(swap is not None, interpolate, linear, times)
    choice = Choice(words, read_classes(classes), guidance_scale, negative_prompt)
    wanted = Wanted(num, seed, batch_size, choice, interpolate, linear, swap is not None)
    run_sample(student, wanted, times, output)


@app.command()
def export(
    student: Annotated[str, typer.Argument(help="A run or a student-path folder.")],
    output: Annotated[Path, typer.Option(help="A new folder for the stock pipeline.")],
    guidance_scale: Annotated[float | None, typer.Option(help="The weight to fold, of a learned range.")] = None,
) -> None:
    """Write a student as a stock diffusers pipeline, with the guidance weight of your choice."""
    from bootdiff.cli.export import run_export

    run_export(student, output, guidance_scale)


@app.command()
def evaluate(
    student: Annotated[str, typer.Argument(help="A run or a student.")],
    output: Annotated[Path, typer.Option(help="A JSON file.")],
    teacher: Annotated[str | None, typer.Option(help="Where the student does not say, or another one.")] = None,
    reference: Annotated[str | None, typer.Option(help="Images, an .npz file, digits or fashion.")] = None,
    features: Annotated[
        str | None,
        typer.Option(
            help="Feature space: digits, fashion, pixels, an .onnx file, inception:FILE, dinov2:ID or clip:ID."
        ),
    ] = None,
    num: Num = 2000,
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Seed of the first noise.")] = 0,
    repeats: Annotated[int, typer.Option(min=1, help="Noise seeds; figures are means over them.")] = 1,
    ddim_steps: Annotated[str | None, typer.Option(help="K,K,...: the teacher's DDIM rows.")] = None,
    heun: Annotated[bool, typer.Option(help="A row for 50 Heun steps, the path's exact end.")] = True,
    prompts: PromptFile = None,
    prompt_column: PromptColumn = None,
    label_column: Annotated[
        str | None, typer.Option(help="Of the prompts file: the class that each prompt asks for.")
    ] = None,
    classes: Classes = None,
    guidance_scale: GuidanceScale = None,
    clip: Clip = None,
    revision: Revision = None,
    variant: Variant = None,
    dtype: Annotated[str | None, typer.Option(help="Another one than the student's teacher ran in.")] = None,
) -> None:
    """Measure a student beside its teacher's own samplers, from the same noises."""
    from bootdiff.cli.evaluate import run_evaluate
    from bootdiff.cli.sample import read_classes, read_labels, read_words
    from bootdiff.pipelines.samplers import Choice

    labels = read_labels(prompts, prompt_column, label_column)
    given = _given({"revision": revision, "variant": variant, "dtype": dtype})
    choice = Choice(read_words((), prompts, prompt_column), read_classes(classes), guidance_scale)
    run_evaluate(
        student,
        teacher,
        reference,
        features,
        num,
        seed,
        repeats,
        ddim_steps,
        heun,
        output,
        given,
        choice,
        labels,
        clip=clip,
    )


@app.command()
def compare(
    students: Annotated[list[str], typer.Argument(help="Runs or students of one teacher.")],
    output: Annotated[Path, typer.Option(help="A folder; the same command resumes.")],
    teacher: Annotated[str | None, typer.Option(help="Where the students do not say.")] = None,
    reference: Annotated[str | None, typer.Option(help="As for evaluate.")] = None,
    features: Annotated[str | None, typer.Option(help="As for evaluate.")] = None,
    samplers: Annotated[
        list[str], typer.Option(help="'ddim:1,10 unipc:10': the teacher's rows; a fitting dozen by default.")
    ] = [],  # noqa: B006  as above
    num: Num = 2000,
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Seed of the first noise.")] = 0,
    repeats: Annotated[int, typer.Option(min=1, help="Noise seeds; figures are means over them.")] = 1,
    prompts: PromptFile = None,
    prompt_column: PromptColumn = None,
    label_column: Annotated[
        str | None, typer.Option(help="Of the prompts file: the class that each prompt asks for.")
    ] = None,
    classes: Classes = None,
    guidance_scale: GuidanceScale = None,
    clip: Clip = None,
) -> None:
    """Students beside their teacher under diffusers' samplers: a table, a plot and pictures, from the same noises."""
    from bootdiff.cli.compare import Asked, run_compare
    from bootdiff.cli.sample import read_classes, read_labels, read_words
    from bootdiff.pipelines.samplers import Choice

    labels = read_labels(prompts, prompt_column, label_column)
    choice = Choice(read_words((), prompts, prompt_column), read_classes(classes), guidance_scale)
    asked = Asked(features, reference, samplers, num, seed, repeats, clip)
    run_compare(students, teacher, asked, choice, labels, output)


@app.command()
def ablate(
    config: Annotated[Path, typer.Argument(help="YAML: teacher, settings, vary, grid, seeds, evaluate.")],
    output: Annotated[Path, typer.Option(help="A folder; the same command resumes.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the variants and stop.")] = False,
) -> None:
    """One setting after another changed: a run for every variant, one table, and pictures of them all."""
    from bootdiff.cli.ablate import run_ablate

    run_ablate(config, output, dry_run)


@app.command("train-teacher", cls=TeachCommand)
def train_teacher(
    data: Annotated[str, typer.Argument(help="digits, a folder of images, IDX files or parquet.")],
    output: Annotated[Path, typer.Option(help="The teacher's folder; the same command resumes.")],
    kind: Annotated[
        str | None, typer.Option(help="unconditional, classes, stable-diffusion, if or if-upscaler.")
    ] = None,
    prediction: Annotated[str | None, typer.Option(help="sample, epsilon or v_prediction.")] = None,
    schedule: Annotated[str | None, typer.Option(help="cosine, linear, scaled_linear or sigmoid.")] = None,
    config: Config = None,
    assign: Assign = [],  # noqa: B006  typer reads it, nobody changes it
    steps: Steps = None,
    batch_size: Batch = None,
    seed: Seed = None,
    report_to: Report = None,
) -> None:
    """Train a teacher on images, their labels or captions: a diffusers pipeline of your own."""
    from bootdiff.cli.teach import run_train_teacher

    options = {
        "steps": steps,
        "batch_size": batch_size,
        "seed": seed,
        "kind": kind,
        "prediction": prediction,
        "schedule": schedule,
    }
    run_train_teacher(data, output, config, assign, _given(options), _tracker(report_to))


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="The --output of bootdiff distill.")],
    teacher: Annotated[str | None, typer.Option(help="Where the run does not say, or it has moved.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="FILE.html; default: in the run, of several runs report.html here.")
    ] = None,
) -> None:
    """Verdict, samples, figures, curves and settings on one page; several runs are set side by side."""
    from bootdiff.cli.report import run_report

    run_report(runs, teacher, output)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def _tracker(name: str | None) -> str | None:
    from bootdiff.errors import choose

    return None if name is None else choose(name, ("tensorboard", "wandb", "trackio"), "tracker")


def run() -> None:
    """The entry point: our own errors become one line and exit code 2, an interruption 130."""
    try:
        app()
    except Interrupted as stop:
        print(f"bootdiff: {stop}", file=sys.stderr)
        sys.exit(130)
    except BootdiffError as error:
        print(f"bootdiff: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("bootdiff: interrupted.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:  # a full disk, a folder without permission
        print(f"bootdiff: error: {error}", file=sys.stderr)
        sys.exit(2)
