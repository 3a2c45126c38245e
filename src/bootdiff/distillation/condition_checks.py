"""Checks that what a distillation was asked about conditions fits its teacher; every refusal is one line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bootdiff.core.errors import BootdiffError
from bootdiff.data.prompts import PromptFile, read_prompts
from bootdiff.methods.settings import DistillationSettings
from bootdiff.storage.runs import Run
from bootdiff.teachers.adapters.base import Adapter

if TYPE_CHECKING:
    from bootdiff.students import Student


class Check(NamedTuple):
    """A possible refusal: whether it applies, and what it says."""

    when: bool
    say: str


def refuse(*checks: Check) -> None:
    """Refuse with the first of these checks that applies; do nothing if none does.

    Raises:
        BootdiffError: if a check applies, with what that one says.
    """
    for check in checks:
        if check.when:
            raise BootdiffError(check.say)


def check_label(label: int, count: int, null: int | None = None) -> None:
    """Refuse a label that a teacher of ``count`` classes does not have.

    ``null`` is the label that stands for no class, if there is one.
    """
    if not 0 <= label < count:
        last = count - 2 if null == count - 1 else count - 1
        raise BootdiffError(f"class {label} is out of range; this teacher has the classes 0 to {last}.")


def class_labels(adapter: Adapter, settings: DistillationSettings) -> list[int]:
    """Return the labels to draw from: those asked for, or all but the one that stands for no class.

    Raises:
        BootdiffError: if the teacher does not have a label, or no label is left.
    """
    null, count = null_class(adapter, settings), adapter.classes
    last = count - 1
    if settings.null_class is not None and settings.null_class > last and settings.null_class != adapter.null_class:
        raise BootdiffError(f"null class {settings.null_class} is out of range; the labels are 0 to {last}.")
    for label in settings.classes or []:
        check_label(label, count, null)
    if settings.classes is not None and null in settings.classes:
        raise BootdiffError(f"class {null} stands for no class (null_class), so it cannot be one of --classes.")
    labels = list(dict.fromkeys(settings.classes or [])) or [label for label in range(count) if label != null]
    if not labels:
        raise BootdiffError(f"no class is left beside the null class {null}; this teacher has {count}.")
    return labels


def null_class(adapter: Adapter, settings: DistillationSettings) -> int | None:
    """Return the label that stands for no class; None if there is none."""
    return adapter.null_class if settings.null_class is None else settings.null_class


def check_asked(settings: DistillationSettings, takes: str, name: str) -> None:
    """Refuse settings of prompts or classes that mean nothing to this kind of teacher."""
    asked = {
        "--prompts": (settings.prompts, "prompts"),
        "--prompt-column": (settings.prompt_column, "prompts"),
        "--negative-prompt": (settings.negative_prompt, "prompts"),
        "--classes": (settings.classes, "classes"),
        "--null-class": (settings.null_class, "classes"),
    }
    for option, (value, kind) in asked.items():
        if value is not None and kind != takes:
            raise BootdiffError(f"{option} is for teachers conditioned on {kind}; {name} is conditioned on {takes}.")


def check_plain(settings: DistillationSettings, name: str) -> None:
    """Refuse settings of guidance for a teacher of the user's own, which is guided and conditioned in Python."""
    for option in ("guidance_scale", "guidance_range", "base"):
        if getattr(settings, option) is not None:
            raise BootdiffError(
                f"{option} is for teachers that were read from a pipeline; wrap {name} as bootdiff.Guided(teacher, "
                "null, weight) and give its conditions to bootdiff.distill."
            )


def check_guidance(settings: DistillationSettings, adapter: Adapter, name: str) -> None:
    """Refuse guidance that this teacher cannot have, or for which it lacks a label."""
    asked = settings.guidance_range is not None or settings.guidance_scale is not None
    if not asked:
        if settings.negative_prompt is not None:
            raise BootdiffError("--negative-prompt has no effect without --guidance-scale or --guidance-range.")
        return
    unguided = settings.guidance_range is None and settings.guidance_scale == 1
    lacks_label = adapter.takes == "classes" and null_class(adapter, settings) is None
    refuse(
        Check(
            settings.export_guidance is not None and adapter.weight_slot,
            f"export_guidance: the student of {name} serves every weight of its range; leave it out.",
        ),
        Check(
            adapter.guidance == "none",
            f"{name} is conditioned on nothing, so guidance means nothing to it; leave it out.",
        ),
        Check(
            adapter.guidance == "embedded" and settings.negative_prompt is not None,
            f"{name} is told its guidance weight and makes no second pass for a negative prompt.",
        ),
        Check(
            lacks_label and not unguided,
            f"guidance needs the label that stood for no class when {name} was trained; name it with --null-class, or "
            "leave guidance out if there is none.",
        ),
    )


def asked_prompts(settings: DistillationSettings, name: str, run: Run | None = None) -> PromptFile:
    """Return the prompts that a teacher on text needs; if their file has gone, those that the run has kept."""
    if settings.prompts is None:
        raise BootdiffError(
            f"{name} is conditioned on text, so it needs prompts (no images): --prompts FILE, one a line, or a CSV, "
            "TSV, JSON lines or parquet file."
        )
    kept = run.prompts if run is not None and run.started else None
    same = kept is not None and run is not None and run.settings.get("prompts") == settings.prompts
    if kept is not None and same and not Path(settings.prompts).exists():
        return PromptFile(tuple(kept), 0, settings.prompts)
    return read_prompts(settings.prompts, settings.prompt_column)


def base_stage(settings: DistillationSettings, adapter: Adapter, name: str) -> Student:
    """Return the student of the distilled base stage.

    Raises:
        BootdiffError: if no base is given, or it is not finished, or its images have a size that this stage cannot
            enlarge.
    """
    from bootdiff.students.files import load_student
    from bootdiff.students.folder import StudentFolder
    from bootdiff.teachers.adapters.upscaling import check_enlarges

    if settings.base is None:
        raise BootdiffError(
            f"{name} enlarges the images of a base stage, and is distilled on those of its student: first distil the "
            "base, then give its run with --base RUN."
        )
    if not Path(settings.base).is_dir():
        raise BootdiffError(f"--base {settings.base}: no folder there; expected the run of the distilled base stage.")
    base = load_student(StudentFolder.unfolded(settings.base).path)
    check_enlarges(adapter, base.adapter, base.shape, settings.base)
    if base.adapter is None or base.adapter.takes != "prompts":
        raise BootdiffError(f"--base {settings.base} takes no prompts, but {name} does; expected its own base stage.")
    levels = int(adapter.parts.load("image_noising_scheduler").config.num_train_timesteps)
    if settings.noise_level >= levels:
        raise BootdiffError(
            f"noise_level {settings.noise_level} is no timestep of {name}, which has 0 to {levels - 1}."
        )
    return base
