"""Samplers under one contract: noises and conditions in, samples out, in one network call."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from bootdiff.builtin import BUILTIN_TEACHERS
from bootdiff.condition import Condition
from bootdiff.data.conditions import Classes, Conditions, Prompts, Unconditional, Weighted
from bootdiff.errors import BootdiffError, first_line
from bootdiff.out_of_memory import let_pass
from bootdiff.pipelines.student_files import FILE, guidance_in, load_student, path_folder, read_facts, student_facts
from bootdiff.quiet import quietly
from bootdiff.randomness import sample_noise
from bootdiff.student import Student
from bootdiff.teachers.adapters import adapter_for
from bootdiff.teachers.adapters.base import Adapter
from bootdiff.teachers.base import NO_CONDITION
from bootdiff.teachers.encoding import PromptEncoder
from bootdiff.teachers.parts import Parts
from bootdiff.transfer import settled


def best_device() -> torch.device:
    """The accelerator, where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Told(Protocol):
    """Something that is told a condition, of which its pipeline says what it must hold."""

    @property
    def adapter(self) -> Adapter | None:
        """Of the pipeline that it belongs to, if it belongs to one."""
        ...

    def told_weight(self, weight: float | None) -> float | None:
        """The guidance weight that its condition must hold; None where it holds none."""
        ...


class Sampler(Told, Protocol):
    """Makes samples from starting noises, on the noises' own device."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample, without the batch."""
        ...

    def __call__(self, eps: Tensor, condition: Condition = NO_CONDITION) -> Tensor: ...


class StockStudent:
    """An exported student, called through stock diffusers' own network and scheduler."""

    def __init__(self, folder: Path) -> None:
        import diffusers

        self.facts = read_facts(folder / FILE) if (folder / FILE).exists() else {}
        try:
            parts = Parts(folder)
            parts.size = self.facts.get("teacher_options", {}).get("size")
            self.adapter: Adapter = adapter_for(parts.pipeline_class, f"{folder} is a {parts.pipeline_class}")(parts)
            self.network: Any = self.adapter.load()
            words = parts.scheduler
            with quietly():
                self.scheduler = getattr(diffusers, words["_class_name"]).from_config(words)
        except BootdiffError as error:
            raise BootdiffError(f"{folder} cannot be opened as a pipeline ({error})") from error
        except Exception as error:  # diffusers raises many kinds; to the user each means a damaged folder
            let_pass(error)
            raise BootdiffError(f"{folder} cannot be opened as a pipeline ({first_line(error)}).") from error
        if words.get("num_train_timesteps") not in (1, 2):
            raise BootdiffError(
                f"{folder} holds a pipeline ({parts.pipeline_class}) but no one-step student (its scheduler has "
                f"{words.get('num_train_timesteps')} timesteps); expected a run, or a student that bootdiff exported."
            )
        self.shape = self.adapter.shape
        self.network.requires_grad_(False).eval()

    @torch.no_grad()
    def __call__(self, eps: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """One network call and one scheduler step."""
        network, scheduler = settled(self.network, eps.device), copy.copy(self.scheduler)  # which counts its steps
        scheduler.set_timesteps(1)
        t = scheduler.timesteps[0].to(eps.device)
        out = self.adapter.call(network, eps, t.expand(len(eps)), condition).float()
        return scheduler.step(out, t, eps).prev_sample

    def told_weight(self, weight: float | None) -> float | None:
        """Where the network has a slot for it: a weight from the range that was learned."""
        learned, embedded = guidance_in(self.facts), self.adapter.guidance == "embedded"
        if isinstance(learned, tuple) and embedded:
            if weight is not None and not learned[0] <= weight <= learned[1]:
                raise BootdiffError(f"guidance weight {weight:g} is outside what it learned, {list(learned)}.")
            return sum(learned) / 2 if weight is None else weight
        usual = self.adapter.usual_weight if embedded else 1.0
        here = self.facts.get("folded_weight", usual if learned is None else learned)
        if weight is not None and weight != here:
            raise BootdiffError(f"this student has guidance weight {here:g} folded in; it cannot serve {weight:g}.")
        return here if embedded else None


class PathSampler:
    """An unfolded student, asked for t_min or another time."""

    def __init__(self, student: Student, t: float | None = None) -> None:
        self.student, self.shape, self.adapter, self.t = student, student.shape, student.adapter, t

    def __call__(self, eps: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """Samples in one call."""
        return settled(self.student, eps.device).sample(eps, condition, self.t)

    def told_weight(self, weight: float | None) -> float | None:
        """The student's."""
        return self.student.told_weight(weight)


def open_student(name: str) -> tuple[Sampler, dict[str, Any]]:
    """A one-step sampler from a run, a ``student-path`` or an exported student, and what its ``bootdiff.json`` says.

    Raises:
        BootdiffError: if the folder is none of them, or its run is not finished.
    """
    folder = Path(name)
    if not folder.is_dir():
        more = (
            f" {name} is a builtin teacher: bootdiff distill {name} --output RUN makes one."
            if name in BUILTIN_TEACHERS
            else ""
        )
        raise BootdiffError(f"no folder at '{name}'; expected a run or a student.{more}")
    if (folder / "model_index.json").exists() and not (folder / "student").exists():
        stock = StockStudent(folder)
        return stock, stock.facts
    student = load_student(path_folder(folder))
    return PathSampler(student), student_facts(student)


@dataclass(frozen=True)
class Choice:
    """What samples are asked for.

    Args:
        prompts, classes: one after the other; by default those of the run, or all classes.
        weight: guidance weight, of a student that learned a range; its middle by default.
        negative: what guidance leads away from; a student learned one, and can be asked for that only.
    """

    prompts: Sequence[str] | None = None
    classes: Sequence[int] | None = None
    weight: float | None = None
    negative: str | None = None


ANY = Choice()


def conditions_for(sampler: Told, facts: dict[str, Any], choice: Choice = ANY) -> Conditions:
    """What a sampler's samples are conditioned on, by number.

    Args:
        facts: of the student; they say which classes it learned.

    Raises:
        BootdiffError: for words that mean nothing to this student, or that it needs and are missing.
    """
    adapter = sampler.adapter
    takes = adapter.takes if adapter is not None else "nothing"
    if choice.prompts is not None and takes != "prompts":
        raise BootdiffError(f"this student is conditioned on {takes}, not on prompts; leave them out.")
    if choice.classes is not None and takes != "classes":
        raise BootdiffError(f"this student is conditioned on {takes}, not on classes; leave them out.")
    learned = facts.get("conditions", {}).get("negative_prompt")
    if choice.negative is not None and choice.negative != (learned or ""):
        words = f"'{learned}'" if learned else "none"
        raise BootdiffError(
            f"the negative prompt is learned with the student, which learned {words}; distil again with "
            f"--negative-prompt '{choice.negative}'."
        )
    conditions: Conditions = Unconditional()
    if adapter is not None and takes == "classes":
        conditions = Classes(_labels(adapter, facts, choice.classes))
    elif adapter is not None and takes == "prompts":
        if choice.prompts is None:
            raise BootdiffError("this student is conditioned on text; give --prompt TEXT or --prompts FILE.")
        encoder, prompts = PromptEncoder(adapter, best_device()), list(choice.prompts)
        conditions = Prompts(len(prompts), lambda numbers: encoder([prompts[n] for n in numbers]))
    told = sampler.told_weight(choice.weight)
    return conditions if told is None else Weighted(conditions, told, told, told)


def _labels(adapter: Adapter, facts: dict[str, Any], asked: Sequence[int] | None) -> list[int]:
    learned = facts.get("conditions", {}).get("labels") or list(range(adapter.classes))
    for label in asked or []:
        if label not in learned:
            raise BootdiffError(f"class {label} is none that this student learned: {_span(learned)}.")
    return list(asked or learned)


def _span(labels: Sequence[int]) -> str:
    """A few labels as they are, many by their ends."""
    return ", ".join(map(str, labels)) if len(labels) <= 12 else f"{labels[0]} … {labels[-1]}"


def check_enlarges(stage: Adapter, base: Adapter | None, shape: Sequence[int], name: str) -> None:
    """Refuse a base stage whose images a super-resolution stage cannot enlarge.

    Args:
        shape: of the base's images.
        name: the base's, for the message.

    Raises:
        BootdiffError: naming both sizes.
    """
    small, (channels, height, width) = tuple(shape), stage.shape
    whole = len(small) == 3 and height > small[1] and height % small[1] == 0 and height * small[2] == width * small[1]
    if not whole or small[0] != channels or (base is not None and base.latent):
        raise BootdiffError(
            f"{name} makes {small}, which this stage cannot enlarge to {tuple(stage.shape)}; expected images of as "
            "many channels and a whole fraction of the size."
        )


def batch_for(shape: Sequence[int]) -> int:
    """Samples of this shape that a network may be given at a time, 512 at most.

    512 of 1,024 values, 32 of Stable Diffusion's; on a CPU 128 and 8: larger ones, which guidance doubles, do not fit
    into its caches.
    """
    values = 2**17 if best_device().type == "cpu" else 2**19
    return max(1, min(512, values // math.prod(shape)))


def noise_batches(seed: int, num: int, shape: Sequence[int], batch_size: int) -> Iterator[Tensor]:
    """The noises of the samples 0 … num − 1 of ``seed``, in batches; sample i does not depend on the batch size."""
    for start in range(0, num, batch_size):
        yield sample_noise(seed, start, min(num, start + batch_size), shape).to(best_device())
