"""One learner in the loop: its prepared network, optimiser, rate schedule and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from bootdiff.objectives.base import Learner
from bootdiff.training.settings import TrainingSettings

if TYPE_CHECKING:
    from accelerate import Accelerator


class LearnerState:
    """What the loop keeps for one learner.

    The rate is a function of the learner's own step count, so it needs no state beside that count.
    """

    def __init__(self, learner: Learner, settings: TrainingSettings, accelerator: Accelerator) -> None:
        self.learner, self.settings, self.accelerator = learner, settings, accelerator
        self.raw: nn.Module = learner.module.to(accelerator.device)
        self.optimiser: Any = None
        self.prepared: nn.Module = accelerator.prepare(self.raw)
        self.reset(first_step=0)

    def reset(self, first_step: int) -> None:
        """Start the optimiser, its rate and the average anew, as at step ``first_step``."""
        learner = self.learner
        fused = self.accelerator.device.type in ("cpu", "cuda")
        optimiser = torch.optim.AdamW(
            self.raw.parameters(),
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
        self.ema = EMAModel(self.raw.parameters(), decay=learner.ema_decay, foreach=True) if learner.ema_decay else None

    def update(self, step: int) -> tuple[float, float]:
        """Clip the gradients, step the optimiser and move the average; return (gradient norm, rate)."""
        limit = self.settings.gradient_clip or math.inf
        norm = float(self.accelerator.clip_grad_norm_(self.raw.parameters(), limit))
        if not math.isfinite(norm) and self.accelerator.scaler is None:
            return norm, 0.0
        rate = self.learner.learning_rate * rate_factor(step - self.first_step, self.settings, self.first_step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.step(self.raw.parameters())
        return norm, rate

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """The raw network with the averaged weights in place."""
        if self.ema is None:
            yield self.raw
            return
        self.ema.store(self.raw.parameters())
        self.ema.copy_to(self.raw.parameters())
        try:
            yield self.raw
        finally:
            self.ema.restore(self.raw.parameters())

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Everything to find again after a resume, by file."""
        files = {"weights": dict(self.raw.state_dict()), "optimiser": {}}
        for index, values in self.optimiser.state_dict()["state"].items():
            files["optimiser"].update({f"{index}.{name}": value for name, value in values.items()})
        if self.ema is not None:
            files["ema"] = {str(i): p for i, p in enumerate(self.ema.shadow_params)}
        return files

    def counts(self) -> dict[str, int]:
        """The numbers that belong to ``tensors``."""
        return {"first_step": self.first_step, "ema_steps": self.ema.optimization_step if self.ema else 0}

    def restore(self, files: Mapping[str, Mapping[str, Tensor]], counts: Mapping[str, int]) -> None:
        """Take back ``tensors`` and ``counts``."""
        self.raw.load_state_dict(dict(files["weights"]))
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in files["optimiser"].items():
            index, name = key.split(".", 1)
            state.setdefault(int(index), {})[name] = value
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        self.first_step = counts["first_step"]
        if self.ema is not None:
            self.ema.optimization_step = counts["ema_steps"]
            for shadow, (_, value) in zip(
                self.ema.shadow_params, sorted(files["ema"].items(), key=lambda item: int(item[0])), strict=True
            ):
                shadow.copy_(value)


def rate_factor(step: int, settings: TrainingSettings, first_step: int = 0) -> float:
    """The rate's share at ``step`` of a schedule that lasts until ``settings.steps``: warm-up, then falling to 0."""
    length = settings.steps - first_step
    if step < settings.warmup_steps:
        return (step + 1) / (settings.warmup_steps + 1)
    progress = (step - settings.warmup_steps) / max(1, length - settings.warmup_steps)
    if settings.lr_schedule == "linear":
        return 1 - progress
    if settings.lr_schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 1.0
