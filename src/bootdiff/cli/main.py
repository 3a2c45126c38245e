"""The ``bootdiff`` command; heavy imports happen inside the commands, so that ``--help`` answers at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bootdiff.cli import measuring
from bootdiff.cli.group import Group
from bootdiff.cli.help import DistillCommand, TeachCommand
from bootdiff.cli.options import (
    Assign,
    Batch,
    Classes,
    Config,
    Device,
    GuidanceScale,
    Num,
    Output,
    PromptColumn,
    PromptFile,
    Refine,
    RefineFrom,
    Report,
    Seed,
    Steps,
    Teacher,
    given,
    loading,
)
from bootdiff.cli.terminal import show_every_character
from bootdiff.config.teacher import TeacherOptions
from bootdiff.core.errors import BootdiffError, Interrupted, one_line, show_traceback
from bootdiff.system import notes, presence
from bootdiff.system.allocator import keep_freed_memory
from bootdiff.system.invoked import by_command_line
from bootdiff.system.out_of_memory import told_when_out_of_memory
from bootdiff.system.processes import told_when_lost
from bootdiff.system.signals import all_like_ctrl_c

app = typer.Typer(
    name="bootdiff",
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(measuring.app)


def _version(asked: bool) -> None:
    if asked:
        from bootdiff import __version__

        print(f"bootdiff {__version__}")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Distil a pretrained diffusion model into one network call, without its training data.

    Environment: BOOTDIFF_DEBUG=1 shows where an error came from; BOOTDIFF_PROCESS_TIMEOUT=SECONDS (300) is how long
    one of several processes may stay silent before the others end.
    """
    context.with_resource(by_command_line())
    notes.begin()
    show_every_character()


@app.command()
def quickstart(
    output: Output = Path("runs/quickstart"),
    assign: Assign = [],  # noqa: B006  typer reads it, nobody changes it
    num: Num = 2000,
) -> None:
    """Distil the builtin digits teacher, measure it and write a report: five minutes on a laptop."""
    from bootdiff.cli.quickstart import run_quickstart

    run_quickstart(output, assign, num)


@app.command()
@loading
def inspect(
    teacher: Teacher,
    loaded: TeacherOptions = TeacherOptions(),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What a teacher is, whether it is supported, and what distilling it costs."""
    from bootdiff.cli.functions import named_teacher
    from bootdiff.cli.inspect import print_inspection
    from bootdiff.teachers import load_teacher

    print_inspection(load_teacher(named_teacher(teacher), **loaded.options), json)


@app.command()
def methods() -> None:
    """What distill --method can be: a line for each method."""
    from bootdiff.cli.methods import print_methods

    print_methods()


@app.command(cls=DistillCommand)
@loading
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
    start: Annotated[str | None, typer.Option(help="A run whose student is trained on, or corrected.")] = None,
    source: Annotated[
        str | None, typer.Option(help="What a batch holds: noise, pairs, trajectories or images; as the method takes.")
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="For --source images: digits, a folder, IDX files, parquet or hf:NAME."),
    ] = None,
    stop_when: Annotated[str | None, typer.Option(help="steps (default) or converged.")] = None,
    loaded: TeacherOptions = TeacherOptions(),
    report_to: Report = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the resolved plan and stop.")] = False,
) -> None:
    """Distil a teacher into a student of one call, or of few."""
    from bootdiff.cli.distill import run_distill
    from bootdiff.data.classes import read_classes

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
        "start": start,
        "source": source,
        "images": images,
        "stop_when": stop_when,
    }
    tracker = _tracker(report_to)
    run_distill(teacher, output, method, config, assign, given(options), tracker, dry_run, loaded)


@app.command()
def sample(
    student: Annotated[
        list[str], typer.Argument(help="A run, a student-path folder or an exported student; for a cascade, two.")
    ],
    output: Annotated[
        Path, typer.Option(help="FILE.png for a grid, FILE.npz for arrays, or a new folder with a file a sample.")
    ],
    num: Annotated[int, typer.Option(min=1, help="How many samples.")] = 16,
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Sample i starts from the noise of seed + i.")] = 0,
    times: Annotated[
        str | None,
        typer.Option(help="T,T,...: y_t along the path; of a consistency student, the times of all its calls."),
    ] = None,
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
    refine: Refine = None,
    refine_from: RefineFrom = None,
    edit: Annotated[
        str | None, typer.Option(help="With --refine: a prompt, or a class, that the teacher finishes it as.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option(help="With --refine: a picture to start from, or with --mask to stay.")
    ] = None,
    mask: Annotated[Path | None, typer.Option(help="White where the student fills --image in.")] = None,
    edit_task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK",
            help="inpaint, colourise, super-resolution or strokes: what a consistency student, or with --refine the "
            "teacher, makes of --image.",
        ),
    ] = None,
    factor: Annotated[
        int | None, typer.Option(min=2, max=64, help="Of super-resolution: the side of a coarse pixel; default: 2.")
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(help="With --refine: who finishes. For a module of your own: the function that returns it."),
    ] = None,
    calls: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="Calls an image, of a student that can be called several times."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples a network call, at most.")] = 256,
    device: Device = None,
) -> None:
    """Draw samples, in one network call each unless the student takes more; a cascade's two stages make two."""
    from bootdiff.cli.functions import named_teacher
    from bootdiff.cli.sample import run_sample
    from bootdiff.cli.words import read_words
    from bootdiff.core.device import use_device
    from bootdiff.data.classes import read_classes
    from bootdiff.samplers.choice import Choice
    from bootdiff.sampling.editing import task_of
    from bootdiff.sampling.finish import finish_of
    from bootdiff.sampling.layouts import layout_of
    from bootdiff.sampling.sample import Wanted

    use_device(device)
    words = read_words(prompt, prompts, prompt_column, swap)
    layout = layout_of(swap is not None, interpolate, linear, times)
    choice = Choice(words, read_classes(classes, "--class"), guidance_scale, negative_prompt)
    task = task_of(edit_task, image, mask, factor, refine_from if refine is None else None)
    finish = finish_of(refine, refine_from, edit, image, mask, task)
    own = named_teacher(teacher)
    wanted = Wanted(num, seed, batch_size, choice, layout, finish, calls, own, task)
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


@app.command("train-teacher", cls=TeachCommand)
def train_teacher(
    data: Annotated[str, typer.Argument(help="digits, a folder of images, IDX files, parquet, or hf:NAME of the hub.")],
    output: Annotated[Path, typer.Option(help="The teacher's folder; the same command resumes.")],
    kind: Annotated[
        str | None,
        typer.Option(
            help="unconditional, classes, stable-diffusion, if or if-upscaler. With --help: list its settings."
        ),
    ] = None,
    prediction: Annotated[str | None, typer.Option(help="sample, epsilon or v_prediction.")] = None,
    schedule: Annotated[str | None, typer.Option(help="cosine, linear, scaled_linear or sigmoid.")] = None,
    config: Config = None,
    assign: Assign = [],  # noqa: B006  typer reads it, nobody changes it
    steps: Steps = None,
    batch_size: Batch = None,
    seed: Seed = None,
    with_student: Annotated[
        bool, typer.Option("--with-student", help="Train a one-step student beside it (OUTPUT/one-step).")
    ] = False,
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
        "with_student": "beside" if with_student else None,
    }
    run_train_teacher(data, output, config, assign, given(options), _tracker(report_to))


def _tracker(name: str | None) -> str | None:
    from bootdiff.core.errors import choose

    return None if name is None else choose(name, ("tensorboard", "wandb", "trackio"), "tracker")


def run() -> None:
    """Run the command line; our own errors become one line and exit code 2, and an interruption exit code 130.

    With BOOTDIFF_DEBUG=1 in the environment the traceback comes before that line.
    """
    from bootdiff.system.streams import unheard

    with unheard():
        _run()


def _run() -> None:
    show_every_character()
    try:
        keep_freed_memory()
        with (
            all_like_ctrl_c(),
            presence.kept(),
            told_when_lost(),
            told_when_out_of_memory("close other programs, or lower the sizes that were asked for"),
        ):
            app()
    except Interrupted as stop:
        print(f"bootdiff: {stop}", file=sys.stderr)
        sys.exit(130)
    except BootdiffError as error:
        show_traceback()
        print(f"bootdiff: error: {error}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as end:
        if end.code == 130:  # typer ends so on Ctrl-C, without a word
            print("bootdiff: interrupted; run the same command again.", file=sys.stderr)
        raise
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:  # a full disk, a folder without permission
        show_traceback()
        print(f"bootdiff: error: {one_line(str(error))}", file=sys.stderr)
        sys.exit(2)
