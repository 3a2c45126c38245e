"""One learner in the loop: its prepared network, optimiser, rate schedule and averages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bootdiff.config.settings import TrainingSettings
from bootdiff.core.errors import BootdiffError
from bootdiff.methods.base import EMA, Learner
from bootdiff.training.averages import Average
from bootdiff.training.checkpoint import check_state, check_tensors

if TYPE_CHECKING:
    from accelerate import Accelerator


class LearnerState:
    """What the loop keeps for one learner.

    The rate follows from the run's step, so no further state is kept for it.
    """

    def __init__(self, learner: Learner, settings: TrainingSettings, accelerator: Accelerator) -> None:
        self.learner, self.settings, self.accelerator = learner, settings, accelerator
        self.raw: nn.Module = learner.module.to(accelerator.device)
        self.prepared: nn.Module = accelerator.prepare(self.raw)
        self.parameters = [p for p in self.raw.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(
            self.parameters,
            lr=learner.learning_rate,
            betas=learner.betas,
            weight_decay=learner.weight_decay,
            fused=accelerator.device.type in ("cpu", "cuda"),
        )
        self.optimiser: Any = accelerator.prepare(optimiser)
        self.averages = {name: Average(self.parameters, decay) for name, decay in learner.averages.items()}

    @property
    def sampled(self) -> Average | None:
        """The average that is sampled and exported; None where the weights themselves are."""
        return self.averages.get(EMA)

    def update(self, step: int) -> tuple[Tensor, float]:
        """Clip the gradients, step the optimiser and move the average; return (gradient norm on the device, rate)."""
        limit = self.settings.gradient_clip or math.inf
        rate = self.learner.learning_rate * rate_factor(step, self.settings, self.learner.starts)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        if self.accelerator.scaler is not None:
            norm = self.accelerator.clip_grad_norm_(self.parameters, limit)
            self.optimiser.step()
        else:  # accelerate's wrappers have nothing to do then, and take a while to find out
            norm = nn.utils.clip_grad_norm_(self.parameters, limit)
            self.optimiser.optimizer.step()
        self.optimiser.optimizer.zero_grad(set_to_none=True)
        for average in self.averages.values():
            average.step()
        return torch.as_tensor(norm), rate

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """Give the raw network with the averaged weights in place; afterwards its own weights are back."""
        self.swap()
        try:
            yield self.raw
        finally:
            self.swap()

    def swap(self) -> None:
        """Exchange the weights and their sampled average, if there is one."""
        if self.sampled is not None:
            self.sampled.swap()

    def network(self, average: str) -> nn.Module:
        """Return a network that answers with one of the averages, as it is at each call.

        Raises:
            KeyError: if there is no average of this name.
        """
        return self.averages[average].network(self.raw)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return all tensors that must be found again after a resume, by file and name."""
        files = {"weights": dict(self.raw.state_dict()), "optimiser": {}}
        for index, values in self.optimiser.state_dict()["state"].items():
            files["optimiser"].update({f"{index}.{name}": value for name, value in values.items()})
        for name, average in self.averages.items():
            files[name] = {str(i): p for i, p in enumerate(average.averages)}
        return files

    def counts(self) -> dict[str, int]:
        """Return the numbers that are saved with ``tensors``."""
        moments = len(self.optimiser.state_dict()["state"])  # a parameter without a gradient has none
        return {**{f"{name}_steps": average.steps for name, average in self.averages.items()}, "moments": moments}

    def check(self, name: str, files: Mapping[str, Mapping[str, Tensor]], counts: Mapping[str, int], step: int) -> None:
        """Refuse saved values that ``tensors`` and ``counts`` cannot have given after so many steps.

        Args:
            name: the learner's name.

        Raises:
            BootdiffError: if something is wrong; the message names the file and what is wrong in it.
        """
        check_state(counts, **{f"{average}_steps": int for average in self.averages})
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
        for name, average in self.averages.items():
            average.steps = counts[f"{name}_steps"]
            for number, tensor in enumerate(average.averages):
                tensor.copy_(files[name][str(number)])


def rate_factor(step: int, settings: TrainingSettings, starts: int = 0) -> float:
    """Return the share of the learning rate at ``step``, in [0, 1].

    The schedule lasts until ``settings.steps``: it warms up, and then falls to 0 unless it is constant.

    Args:
        starts: the run's step at which the warm-up begins; nothing learns before it. Without a warm-up the rate falls
            from step 0 on, as it did in the runs of docs/results.md.
    """
    warm = settings.warmup_steps
    if step < starts + warm:
        return max(0, step - starts + 1) / (warm + 1)
    falls_from = starts + warm if warm else 0
    progress = (step - falls_from) / max(1, settings.steps - falls_from)
    if settings.lr_schedule == "linear":
        return 1 - progress
    if settings.lr_schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 1.0
