"""From what a distillation was asked to its conditions: prompts, classes, guidance, a base stage."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from bootdiff.condition import Condition
from bootdiff.data.conditions import Cascade, Classes, Conditions, Prompts, Unconditional, Weighted
from bootdiff.data.prompt_cache import PromptCache, fits, row_bytes, write_cache
from bootdiff.data.prompts import PromptFile, read_prompts
from bootdiff.errors import BootdiffError
from bootdiff.files import remove
from bootdiff.objectives.settings import DistillationSettings, learned_weight
from bootdiff.progress import progress
from bootdiff.teachers import Teacher, adapter_of, guided
from bootdiff.teachers.adapters.base import Adapter
from bootdiff.teachers.adapters.deepfloyd import DeepFloydUpscaler
from bootdiff.teachers.encoding import PromptEncoder

if TYPE_CHECKING:
    from bootdiff.student import Student

ENCODED_AT_ONCE = 32


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
        elif adapter.takes == "prompts":
            speaking = adapter if adapter.parts.kind("text_encoder") or self.base is None else self._base_adapter
            conditions, null = self._encode(speaking, folder / "prompts", device, self.settings.negative_prompt)
        if self.base is not None:
            conditions = self._cascade(conditions, folder, device)
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

    @property
    def _base_adapter(self) -> Adapter:
        assert self.base is not None and self.base.adapter is not None
        return self.base.adapter

    def _cascade(self, conditions: Conditions, folder: Path, device: torch.device | str) -> Conditions:
        base, adapter = self.base, adapter_of(self.teacher)
        assert base is not None and isinstance(adapter, DeepFloydUpscaler)
        own, _ = self._encode(self._base_adapter, folder / "base-prompts", device, None)
        one_step = base.one_step(base.weight()).to(device)
        return Cascade(conditions, one_step, own, base.shape, adapter, self.settings.noise_level)

    def _encode(
        self, adapter: Adapter, folder: Path, device: torch.device | str, negative: str | None
    ) -> tuple[Conditions, Condition]:
        """The prompts as conditions, and the negative prompt's."""
        assert self.prompts is not None
        prompts = self.prompts.prompts
        encoder = PromptEncoder(adapter, "cpu" if self.settings.offload_encoders else device)
        null = encoder.negative(negative).to("cpu")
        digest = f"{self.prompts.digest}-{_fingerprint(encoder, prompts[0])}"
        needed = row_bytes(encoder(prompts[:1])) * len(prompts)
        state = PartialState()
        if state.is_main_process and folder.name == "prompts":  # not again for the base stage
            _report(self.prompts, *encoder.too_long(prompts))
        # One process decides for all: what it writes changes what another would find free.
        answer = [fits(folder, needed, self.settings.prompt_cache_gib) or _cached(folder, digest, len(prompts))]
        if not broadcast_object_list(answer)[0]:
            rows = _InLoop(encoder, prompts)
            return Prompts(len(prompts), rows, () if self.settings.offload_encoders else encoder.modules), null
        if state.is_main_process and not _cached(folder, digest, len(prompts)):
            remove(folder)
            write_cache(folder, len(prompts), _batches(encoder, prompts), digest)
        state.wait_for_everyone()
        adapter.parts.release(*adapter.encoders)
        return Prompts(len(prompts), PromptCache(folder).rows), null


@dataclass(frozen=True)
class _InLoop:
    """Prompts encoded when they are drawn."""

    encoder: PromptEncoder
    prompts: Sequence[str]

    def __call__(self, numbers: Sequence[int]) -> Condition:
        return self.encoder([self.prompts[number] for number in numbers])


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


def _batches(encoder: PromptEncoder, prompts: Sequence[str]) -> Iterator[Condition]:
    with progress("encoding prompts", len(prompts)) as bar:
        for start in range(0, len(prompts), ENCODED_AT_ONCE):
            part = prompts[start : start + ENCODED_AT_ONCE]
            yield encoder(part)
            bar.advance(len(part))


def _cached(folder: Path, digest: str, count: int) -> bool:
    if not folder.is_dir():
        return False
    try:
        cache = PromptCache(folder)
    except BootdiffError:
        return False
    return cache.digest == digest and cache.count == count


def _fingerprint(encoder: PromptEncoder, prompt: str) -> str:
    """Of what the encoders answer: another encoder, precision or tokenizer makes another cache."""
    answer = encoder([prompt])
    digest = hashlib.blake2b(digest_size=6)
    for name, value in sorted(answer.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} {value.double().sum():.4g}".encode())
    return digest.hexdigest()


def _report(prompts: PromptFile, cut: int, window: int) -> None:
    """Say once what of the file was left out or is cut off."""
    if prompts.blank:
        print(
            f"{prompts.source}: {len(prompts.prompts)} prompts; blank ones left out: {prompts.blank}.", file=sys.stderr
        )
    if cut:
        print(
            f"warning: {cut} of {len(prompts.prompts)} prompts are longer than the tokenizer's {window} tokens; their "
            "ends are cut off.",
            file=sys.stderr,
        )
