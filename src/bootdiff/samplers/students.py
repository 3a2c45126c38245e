"""Students as samplers, exported or unfolded."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bootdiff.builtin import BUILTIN_TEACHERS
from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError, first_line
from bootdiff.core.transfer import settled
from bootdiff.samplers.base import Noises, Sampler, fresh
from bootdiff.samplers.one_call import PathSampler
from bootdiff.samplers.several import check_calls, student_sampler, times_in_words
from bootdiff.students.card import StudentCard
from bootdiff.students.files import card_of, load_student
from bootdiff.students.folder import StudentFolder
from bootdiff.system.out_of_memory import let_pass
from bootdiff.system.quiet import quietly
from bootdiff.teachers import Teacher
from bootdiff.teachers.adapters import adapter_for
from bootdiff.teachers.adapters.base import Adapter
from bootdiff.teachers.base import NO_CONDITION
from bootdiff.teachers.loading.parts import Parts

__all__ = ["PathSampler", "StockStudent", "open_student"]


class StockStudent:
    """An exported student, called through stock diffusers' own network and scheduler.

    Args:
        folder: the exported student's folder.
        calls: the number of calls, by default its card's; the card also says whether there may be another number.

    Raises:
        BootdiffError: if the folder holds no exported student, or one that cannot be called so many times.
    """

    #: a scheduler may draw noise between its steps
    draws_noise = True

    def __init__(self, folder: Path, calls: int | None = None) -> None:
        import diffusers

        self.card = StudentFolder(folder, is_export=True).card
        self.calls = calls = self.card.calls if calls is None else calls
        check_calls(calls)
        try:
            parts = Parts(folder, size=self.card.origin.size)
            self.adapter: Adapter = adapter_for(parts.pipeline_class, f"{folder} is a {parts.pipeline_class}")(parts)
            self.network: Any = self.adapter.load()
            words = parts.scheduler
            self.karras = words["_class_name"] == "CMStochasticIterativeScheduler"
            # Without noise of its own that one's step ends at the image, so that the noise can be the sample's.
            own = {"s_noise": 0.0} if self.karras else {}
            with quietly():
                self.scheduler = getattr(diffusers, words["_class_name"]).from_config(words, **own)
        except BootdiffError as error:
            raise BootdiffError(f"{folder} cannot be opened as a pipeline ({error})") from error
        except Exception as error:  # diffusers raises many kinds; to the user each means a damaged folder
            let_pass(error)
            raise BootdiffError(f"{folder} cannot be opened as a pipeline ({first_line(error)}).") from error
        # Only a card tells a student of several calls from any other pipeline.
        folded = self.card.calls == 1 and not self.card.any_calls
        if folded and words.get("num_train_timesteps") not in (1, 2):
            raise BootdiffError(
                f"{folder} holds a pipeline ({parts.pipeline_class}) but no one-step student (its scheduler has "
                f"{words.get('num_train_timesteps')} timesteps); expected a run, or a student that bootdiff exported."
            )
        if calls != self.card.calls and not self.card.any_calls:
            cure = "name its run instead, or let its teacher go on with --refine" if folded else "leave --calls out"
            raise BootdiffError(
                f"--calls {calls}: {folder} is the export of a {self.card.kind} student, which makes its image in "
                f"{times_in_words(self.card.calls)}; {cure}."
            )
        most = self.card.most_calls
        if most is not None and calls > most:
            raise BootdiffError(f"--calls {calls}: {folder} can be called {most} times at most; ask for fewer.")
        self.shape = self.adapter.shape
        self.network.requires_grad_(False).eval()

    @torch.no_grad()
    def __call__(self, eps: Tensor | Noises, condition: Condition = NO_CONDITION) -> Tensor:
        """Return samples (b, *shape), made by as many network calls and scheduler steps."""
        x = eps if isinstance(eps, Tensor) else eps.eps
        network, scheduler = settled(self.network, x.device), copy.copy(self.scheduler)  # which counts its steps
        scheduler.set_timesteps(self.calls)
        x, unused = x * scheduler.init_noise_sigma if self.karras else x, torch.Generator(x.device)
        for call, t in enumerate(scheduler.timesteps, start=1):
            seen = scheduler.scale_model_input(x, t) if self.karras else x
            told = (t.float() if self.karras else t).to(x.device)
            out = self.adapter.call(network, seen, told.expand(len(x)), condition).float()
            step = scheduler.step(out, t, x, generator=unused)
            x = step.prev_sample
            if call < self.calls and (self.karras or hasattr(step, "denoised")):  # the noise must be the sample's own
                x = self._noised(scheduler, getattr(step, "denoised", x), call, eps)
        return x

    def _noised(self, scheduler: Any, image: Tensor, call: int, noise: Tensor | Noises) -> Tensor:
        """Return images behind the fresh noise of a call, as LCMScheduler or CMStochasticIterativeScheduler adds it."""
        if self.karras:
            sigma, low = scheduler.sigmas[call].item(), scheduler.config.sigma_min
            return image + max(0.0, sigma**2 - low**2) ** 0.5 * fresh(noise, call)
        product = scheduler.alphas_cumprod[int(scheduler.timesteps[call])].item()
        return product**0.5 * image + (1 - product) ** 0.5 * fresh(noise, call)

    def told_weight(self, weight: float | None) -> float | None:
        """Return the guidance weight that the network's condition must hold; None where it has no slot for one.

        A weight that is asked for must be in the range that was learned, or the one that is folded in.
        """
        learned, usual = self.card.weight, self.adapter.embedded_weight
        if learned.is_range and usual is not None:
            return learned.served(weight)
        without = 1.0 if usual is None else usual
        known = learned.fixed if self.card.folded_weight is None else self.card.folded_weight
        here = without if known is None else known
        # Without guidance, 1 is as good a name for that as the usual weight of a network that is told one.
        if weight is not None and weight != here and not (known is None and weight == 1):
            raise BootdiffError(f"this student has guidance weight {here:g} folded in; it cannot serve {weight:g}.")
        return None if usual is None else here


def open_student(name: str, calls: int | None = None, teacher: Teacher | None = None) -> tuple[Sampler, StudentCard]:
    """Open a run, a ``student-path`` or an exported student; return its sampler of so many calls and its card.

    Without a number of calls its images are made as they usually are. The student of a plain module is built with its
    teacher.

    Raises:
        BootdiffError: if the folder is none of these, its run is not finished, or it cannot be called so many times.
    """
    if not Path(name).is_dir():
        more = (
            f" {name} is a builtin teacher: bootdiff distill {name} --output RUN makes one."
            if name in BUILTIN_TEACHERS
            else ""
        )
        raise BootdiffError(f"no folder at '{name}'; expected a run or a student.{more}")
    folder = StudentFolder.at(name)
    if folder.is_export:
        stock = StockStudent(folder.path, calls)
        return stock, stock.card
    student = load_student(folder.path, teacher if folder.card.pipeline is None else None)
    return student_sampler(student, calls).sample, card_of(student)
