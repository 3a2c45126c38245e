"""From what a distillation was asked to its conditions: prompts, classes, guidance, a base stage."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from bootdiff.condition import Condition
from bootdiff.data.conditions import Cascade, Classes, Conditions, Unconditional, Weighted
from bootdiff.data.prompts import PromptFile, read_prompts
from bootdiff.errors import BootdiffError
from bootdiff.objectives.settings import DistillationSettings, learned_weight
from bootdiff.teachers import Teacher, adapter_of, guided
from bootdiff.teachers.adapters.base import Adapter
from bootdiff.teachers.adapters.deepfloyd import DeepFloydUpscaler
from bootdiff.training.prompts import encode_prompts

if TYPE_CHECKING:
    from bootdiff.student import Student


@dataclass(frozen=True)
class ConditionPlan:
    """What samples will be conditioned on, checked; nothing but the prompts file and the base stage is loaded."""

    teacher: Teacher
    settings: DistillationSettings
    prompts: PromptFile | None = None
    base: Student | None = None

    @property
    def digest(self) -> str:
        """Of what the settings name but do not hold: the prompts, and the base stage's weights."""
        words = [self.prompts.digest if self.prompts else ""]
        if self.base is not None:
            from bootdiff.teachers.weights import weights_hash

            words.append(weights_hash(self.base))
        return "-".join(word for word in words if word)

    @property
    def facts(self) -> dict[str, Any]:
        """What a student remembers of this: its labels, what guidance led away from, the noise level of its inputs."""
        adapter, settings = adapter_of(self.teacher), self.settings
        words: dict[str, Any] = {"negative_prompt": settings.negative_prompt}
        if adapter is not None and adapter.takes == "classes":
            words.update(labels=class_labels(adapter, settings), null_class=null_class(adapter, settings))
        if self.base is not None:
            words["noise_level"] = settings.noise_level
        return {key: value for key, value in words.items() if value is not None}

    def blank(self, batch: int) -> Condition:
        """Zeros to try the teacher with, and a guidance weight where it is told one."""
        from bootdiff.teachers import blank_condition

        blank = blank_condition(self.teacher, batch)
        weight = self._weights()
        return blank if weight is None else blank.add(guidance=torch.full((batch,), weight[2]))

    def make(self, folder: Path, device: torch.device | str) -> tuple[Teacher, Conditions]:
        """The teacher with guidance, and the conditions; prompts are encoded here, into ``folder`` if they fit.

        Raises:
            BootdiffError: if an encoder is missing or damaged.
        """
        adapter = adapter_of(self.teacher)
        if adapter is None:
            return self.teacher, Unconditional()
        conditions: Conditions = Unconditional()
        null: Condition | None = None
        if adapter.takes == "classes":
            conditions = Classes(class_labels(adapter, self.settings))
            null = Condition({"classes": torch.tensor([null_class(adapter, self.settings) or 0])})
        elif self.prompts is not None:
            own = self.base is None or adapter.parts.kind("text_encoder") is not None
            speaking = adapter if own else adapter_of_base(self.base)
            conditions, null = encode_prompts(self.prompts, speaking, self.settings, folder / "prompts", device)
            if self.base is not None and isinstance(adapter, DeepFloydUpscaler):
                place = folder / "base-prompts"
                theirs, _ = encode_prompts(self.prompts, adapter_of_base(self.base), self.settings, place, device)
                small = self.base.one_step(self.base.weight()).to(device)
                conditions = Cascade(conditions, small, theirs, self.base.shape, adapter, self.settings.noise_level)
        weights = self._weights()
        if weights is not None:
            conditions = Weighted(conditions, *weights)
        return self._guided(null, adapter), conditions

    def _guided(self, null: Condition | None, adapter: Adapter) -> Teacher:
        settings = self.settings
        asked = settings.guidance_range is not None or settings.guidance_scale not in (None, 1.0)
        if adapter.guidance != "free" or not asked or null is None:
            return self.teacher
        return guided(self.teacher, null, settings.guidance_scale)

    def _weights(self) -> tuple[float, float, float] | None:
        """(lowest, highest, shown) of the weights that networks are told; None where none is told any."""
        learned, adapter = learned_weight(self.settings, self.teacher), adapter_of(self.teacher)
        if isinstance(learned, tuple):
            shown = self.settings.export_guidance
            return *learned, sum(learned) / 2 if shown is None else shown
        told = adapter is not None and adapter.guidance == "embedded" and learned is not None
        return (learned, learned, learned) if told and learned is not None else None


def adapter_of_base(base: Student | None) -> Adapter:
    """Of a base stage that has been checked."""
    return cast("Adapter", base.adapter if base is not None else None)


def plan_conditions(teacher: Teacher, settings: Any) -> ConditionPlan:
    """Check everything that a distillation was asked about conditions.

    Raises:
        BootdiffError: naming what does not fit this teacher, and what to give instead.
    """
    plan = ConditionPlan(teacher, settings)
    adapter = adapter_of(teacher)
    takes = "nothing" if adapter is None else adapter.takes
    _check_asked(settings, takes, teacher.name)
    if adapter is None:
        return plan
    _check_guidance(settings, adapter, teacher.name)
    if takes == "classes":
        class_labels(adapter, settings)
    if takes == "prompts":
        plan = replace(plan, prompts=_prompts(settings, teacher.name))
    upscaler = isinstance(adapter, DeepFloydUpscaler)
    if settings.base is not None and not upscaler:
        raise BootdiffError(f"--base is for super-resolution teachers; {teacher.name} is none, so leave it out.")
    if isinstance(adapter, DeepFloydUpscaler):
        plan = replace(plan, base=_base(settings, adapter, teacher.name))
    if takes == "prompts" and (plan.base is None or adapter.parts.kind("text_encoder") is not None):
        adapter.parts.check(*adapter.encoders)
    return plan


def class_labels(adapter: Adapter, settings: DistillationSettings) -> list[int]:
    """The labels to draw from: those asked for, or all but the one that stands for no class.

    Raises:
        BootdiffError: for a label that the teacher does not have.
    """
    null, count = null_class(adapter, settings), adapter.classes
    last = count - 1
    for label in [*(settings.classes or []), *([settings.null_class] if settings.null_class is not None else [])]:
        if label > last and label != adapter.null_class:
            raise BootdiffError(f"class {label} is out of range; this teacher has the classes 0 to {last}.")
    if settings.classes is not None and null in settings.classes:
        raise BootdiffError(f"class {null} stands for no class (null_class), so it cannot be one of --classes.")
    labels = settings.classes or [label for label in range(count) if label != null]
    if not labels:
        raise BootdiffError(f"no class is left beside the null class {null}; this teacher has {count}.")
    return labels


def null_class(adapter: Adapter, settings: DistillationSettings) -> int | None:
    """The label that stands for no class, if there is one."""
    return adapter.null_class if settings.null_class is None else settings.null_class


def _check_asked(settings: DistillationSettings, takes: str, name: str) -> None:
    """Refuse words that mean nothing to this kind of teacher."""
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


def _check_guidance(settings: DistillationSettings, adapter: Adapter, name: str) -> None:
    asked = settings.guidance_range is not None or settings.guidance_scale is not None
    if not asked:
        if settings.negative_prompt is not None:
            raise BootdiffError("--negative-prompt has no effect without --guidance-scale or --guidance-range.")
        return
    if adapter.guidance == "none":
        raise BootdiffError(f"{name} is conditioned on nothing, so guidance means nothing to it; leave it out.")
    if adapter.guidance == "embedded" and settings.negative_prompt is not None:
        raise BootdiffError(f"{name} is told its guidance weight and makes no second pass for a negative prompt.")
    plain = settings.guidance_range is None and settings.guidance_scale == 1
    if adapter.takes == "classes" and null_class(adapter, settings) is None and not plain:
        raise BootdiffError(
            f"guidance needs the label that stood for no class when {name} was trained; name it with --null-class, or "
            "leave guidance out if there is none."
        )


def _prompts(settings: DistillationSettings, name: str) -> PromptFile:
    if settings.prompts is None:
        raise BootdiffError(
            f"{name} is conditioned on text, so it needs prompts (no images): --prompts FILE, one a line, or a CSV, "
            "TSV, JSON lines or parquet file."
        )
    return read_prompts(settings.prompts, settings.prompt_column)


def _base(settings: DistillationSettings, adapter: DeepFloydUpscaler, name: str) -> Student:
    """The distilled base stage.

    Raises:
        BootdiffError: if it is not given, not finished, or of a size that this stage cannot enlarge.
    """
    from bootdiff.pipelines.student_files import load_student, path_folder

    if settings.base is None:
        raise BootdiffError(
            f"{name} enlarges the images of a base stage, and is distilled on those of its student: first distil the "
            "base, then give its run with --base RUN."
        )
    if not Path(settings.base).is_dir():
        raise BootdiffError(f"--base {settings.base}: no folder there; expected the run of the distilled base stage.")
    base = load_student(path_folder(Path(settings.base)))
    channels, height, width = adapter.shape
    small = tuple(base.shape)
    fits_in = len(small) == 3 and small[0] == channels and height > small[1] and height % small[1] == 0
    if not fits_in or height * small[2] != width * small[1] or (base.adapter is not None and base.adapter.latent):
        raise BootdiffError(
            f"--base {settings.base} makes {small}, which {name} cannot enlarge to {tuple(adapter.shape)}; expected "
            "images of as many channels and a whole fraction of the size."
        )
    if base.adapter is None or base.adapter.takes != "prompts":
        raise BootdiffError(f"--base {settings.base} takes no prompts, but {name} does; expected its own base stage.")
    return base
