"""One learner in the loop: its prepared network, optimiser, rate schedule and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bootdiff.config.settings import TrainingSettings
from bootdiff.core.errors import BootdiffError
from bootdiff.methods.base import Learner
from bootdiff.training.checkpoint import check_state, check_tensors

if TYPE_CHECKING:
    from accelerate import Accelerator


class LearnerState:
    """What the loop keeps for one learner.

    The rate follows from the run's step and from the step at which the learner began, so no further state is kept for
    it.
    """

    def __init__(self, learner: Learner, settings: TrainingSettings, accelerator: Accelerator) -> None:
        self.learner, self.settings, self.accelerator = learner, settings, accelerator
        self.raw: nn.Module = learner.module.to(accelerator.device)
        self.optimiser: Any = None
        self.prepared: nn.Module = accelerator.prepare(self.raw)
        self.parameters = [p for p in self.raw.parameters() if p.requires_grad]
        self.reset(first_step=0)

    def reset(self, first_step: int) -> None:
        """Start the optimiser, its rate and the average anew, as if training began at step ``first_step``."""
        learner = self.learner
        fused = self.accelerator.device.type in ("cpu", "cuda")
        optimiser = torch.optim.AdamW(
            self.parameters,
            lr=learner.learning_rate,
            betas=learner.betas,
            weight_decay=learner.weight_decay,
            fused=fused,
        )
        if self.optimiser is not None:
            # accelerate unscales the gradients of every optimiser that it has ever prepared.
            self.accelerator._optimizers.remove(self.optimiser)
        self.optimiser = self.accelerator.prepare(optimiser)
        self.first_step = first_step
        average = Average(self.parameters, learner.ema_decay, rises=not learner.ema_from_start)
        self.ema = average if learner.ema_decay else None

    def update(self, step: int) -> tuple[Tensor, float]:
        """Clip the gradients, step the optimiser and move the average; return (gradient norm on the device, rate)."""
        limit = self.settings.gradient_clip or math.inf
        rate = self.learner.learning_rate * rate_factor(
            step - self.first_step, self.settings, self.first_step, self.learner.starts
        )
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        if self.accelerator.scaler is not None:
            norm = self.accelerator.clip_grad_norm_(self.parameters, limit)
            self.optimiser.step()
        else:  # accelerate's wrappers have nothing to do then, and take a while to find out
            norm = nn.utils.clip_grad_norm_(self.parameters, limit)
            self.optimiser.optimizer.step()
        self.optimiser.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.step()
        return torch.as_tensor(norm), rate

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """Give the raw network with the averaged weights in place; afterwards its own weights are back."""
        if self.ema is not None:
            self.ema.swap()
        try:
            yield self.raw
        finally:
            if self.ema is not None:
                self.ema.swap()

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return all tensors that must be found again after a resume, by file and name."""
        files = {"weights": dict(self.raw.state_dict()), "optimiser": {}}
        for index, values in self.optimiser.state_dict()["state"].items():
            files["optimiser"].update({f"{index}.{name}": value for name, value in values.items()})
        if self.ema is not None:
            files["ema"] = {str(i): p for i, p in enumerate(self.ema.averages)}
        return files

    def counts(self) -> dict[str, int]:
        """Return the numbers that are saved with ``tensors``."""
        moments = len(self.optimiser.state_dict()["state"])  # a parameter without a gradient has none
        return {"first_step": self.first_step, "ema_steps": self.ema.steps if self.ema else 0, "moments": moments}

    def check(self, name: str, files: Mapping[str, Mapping[str, Tensor]], counts: Mapping[str, int], step: int) -> None:
        """Refuse saved values that ``tensors`` and ``counts`` cannot have given after so many steps.

        Args:
            name: the learner's name.

        Raises:
            BootdiffError: if something is wrong; the message names the file and what is wrong in it.
        """
        check_state(counts, first_step=int, ema_steps=int)
        if counts["first_step"] > step:
            raise BootdiffError("state.json: 'first_step' is a later step")
        own = self.tensors()
        for file in own.keys() - {"optimiser"}:
            check_tensors(f"{name}.{file}", files[file], own[file])
        # A parameter has all that AdamW keeps or, before its first gradient, nothing.
        found = files["optimiser"]
        begun = {key.split(".")[0] for key in found}
        if len(begun) != counts.get("moments", len(begun)):
            raise BootdiffError(f"{name}.optimiser is of {len(begun)} parameters, expected {counts['moments']}")
        places: dict[str, Tensor] = {}
        for index, parameter in enumerate(self.parameters):
            if str(index) in begun:
                kept = {"step": torch.zeros(()), "exp_avg": parameter, "exp_avg_sq": parameter}
                places.update({f"{index}.{key}": place for key, place in kept.items()})
        check_tensors(f"{name}.optimiser", found, places)
        if low := [key for key in found if not key.endswith("exp_avg") and (found[key] < 0).any()]:
            raise BootdiffError(f"{name}.optimiser: '{low[0]}' holds a number below 0")

    def restore(self, files: Mapping[str, Mapping[str, Tensor]], counts: Mapping[str, int]) -> None:
        """Take back what ``tensors`` and ``counts`` returned."""
        self.raw.load_state_dict(dict(files["weights"]))
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in files["optimiser"].items():
            index, name = key.split(".", 1)
            state.setdefault(int(index), {})[name] = value
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        self.first_step = counts["first_step"]
        if self.ema is not None:
            self.ema.steps = counts["ema_steps"]
            for number, average in enumerate(self.ema.averages):
                average.copy_(files["ema"][str(number)])


class Average:
    """An exponential moving average of parameters, updated in place without temporary copies.

    If ``rises``, its decay rises as (1 + n) / (10 + n) to ``decay``, so that it soon forgets the start.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float, rises: bool = True) -> None:
        self.sources: list[Tensor] = list(parameters)
        self.averages = [p.detach().clone() for p in self.sources]
        self.decay, self.steps, self.rises = decay, 0, rises

    @torch.no_grad()
    def step(self) -> None:
        """Move the averages towards the present weights."""
        risen = (1 + self.steps) / (10 + self.steps) if self.steps else 0.0
        torch._foreach_lerp_(self.averages, self.sources, 1 - (min(self.decay, risen) if self.rises else self.decay))
        self.steps += 1

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the averages and the present weights."""
        for parameter, average in zip(self.sources, self.averages, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(kept)


def rate_factor(step: int, settings: TrainingSettings, first_step: int = 0, starts: int = 0) -> float:
    """Return the share of the learning rate at ``step``, in [0, 1].

    The schedule lasts until ``settings.steps``: it warms up, and then falls to 0 unless it is constant.

    Args:
        step: the step, counted from ``first_step``.
        starts: the run's step at which the warm-up begins; nothing learns before it. Without a warm-up the rate falls
            from ``first_step`` on, as it did in the runs of docs/results.md.
    """
    length, warm, begins = settings.steps - first_step, settings.warmup_steps, max(0, starts - first_step)
    if step < begins + warm:
        return max(0, step - begins + 1) / (warm + 1)
    falls_from = begins + warm if warm else 0
    progress = (step - falls_from) / max(1, length - falls_from)
    if settings.lr_schedule == "linear":
        return 1 - progress
    if settings.lr_schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 1.0
