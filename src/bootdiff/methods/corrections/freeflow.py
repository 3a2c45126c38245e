"""FreeFlow (Tong et al., arXiv 2511.19428): a batch holds predictions and corrections, whose sizes are balanced.

Source: docs/method.md, "FreeFlow (C3)".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.core.transfer import to_device
from bootdiff.core.turn import Turn
from bootdiff.data.sources import Batch
from bootdiff.methods.base import Loss, Networks
from bootdiff.methods.boot import Boot
from bootdiff.methods.corrections.base import Correction
from bootdiff.methods.corrections.settings import CorrectionSettings
from bootdiff.methods.method import method
from bootdiff.schedules import expand
from bootdiff.solvers import noisy


class FreeFlowSettings(CorrectionSettings):
    """The settings of FreeFlow: those of every correction, and its own."""

    boot_weight: float = Field(
        default=0.0, ge=0, le=1e6, description="of the BOOT loss beside the prediction; 0 = none"
    )
    correction_share: float = Field(
        default=0.25, gt=0, lt=1, description="of the batch that corrects; the rest predicts"
    )
    balance: float = Field(default=1.0, ge=0, le=1000, description="a, of the correction against the prediction")

    @property
    def own(self) -> dict[str, Any]:
        """Return the share of the batch that corrects, and a, by the objective's field."""
        return {"share": self.correction_share, "balance": self.balance}

    @model_validator(mode="after")
    def _a_batch_holds_both(self) -> Self:
        fewest = math.ceil(1 / min(self.correction_share, 1 - self.correction_share))
        if not 0 < math.floor(self.batch_size * self.correction_share) < self.batch_size:
            raise BootdiffError(
                f"a batch must hold predictions and corrections: batch_size is {self.batch_size}, and "
                f"correction_share {self.correction_share:g} needs {fewest} or more."
            )
        return self

    @model_validator(mode="after")
    def _boots_own_need_its_loss(self) -> Self:
        # In a run of two stages they are the first one's.
        used = self.boot_weight > 0 or "boot" in type(self).model_fields
        for name in () if used else ("loss_weight", "solver"):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise BootdiffError(f"{name} is of BOOT's loss, which boot_weight 0 leaves out; leave {name} out, too.")
        return self


@method("freeflow", FreeFlowSettings)
@dataclass
class FreeFlow(Correction):
    """The objective of FreeFlow: prediction on most samples of the batch, and correction on the others.

    Args:
        share: the share of the batch that corrects.
        balance: a. The correction is scaled by a E‖prediction‖ / (E‖correction‖ + c). Both norms are those of gradients
            on the student's output, where the two meet; the prediction's residual carries its weight and 1/t there.

    The norms are those of the whole batch of the step before, so that the scale is the same however a batch is split.
    """

    share: float = 0.25
    balance: float = 1.0
    floor: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        #: E‖prediction‖ / (E‖correction‖ + c); it is 0, so that nothing corrects, until it is known
        self.scale = torch.zeros(())
        self._norms = torch.zeros(4)

    @property
    def path(self) -> Boot:
        """BOOT's objective for the student, which is always a path student here."""
        assert self.boot is not None, "freeflow is declared for path students"
        return self.boot

    def losses(self, networks: Networks, turn: Turn, batch: Batch) -> Sequence[Callable[[], Loss]]:
        """Return the terms of the turn's loss.

        For the student they are the prediction, the correction with the scale of the step before, and BOOT's terms.
        """
        if turn.name == "fake":
            return super().losses(networks, turn, batch)
        batch = self.scaled(batch)
        on_cpu = self.correcting(turn)  # asked there, so that a GPU is not waited for
        # Numbers, not a mask: a GPU must be waited for to learn how many samples a mask selects.
        device = batch.noise.device
        corrects, predicts = (to_device(mask.nonzero()[:, 0], device) for mask in (on_cpu, ~on_cpu))
        terms: list[Callable[[], Loss]] = []
        if not bool(on_cpu.all()):
            terms.append(lambda: self.prediction(networks, turn, batch, predicts))
        if bool(on_cpu.any()):
            terms.append(lambda: self.balanced(networks, turn, batch, corrects))
        boot = self.path
        if self.boot_weight > 0:
            bootstrap, *boundary = boot.losses(networks, turn, batch)
            terms.extend([partial(self._kept, bootstrap), *boundary])
        elif boot.boundary_weight > 0 and turn.step % boot.boundary_every == 0:
            terms.append(lambda: self.edge(networks, batch))
        return terms

    def correcting(self, turn: Turn) -> Tensor:
        """Return which samples of the slice correct, bool (b,) on the CPU.

        It depends on their numbers in the whole batch.
        """
        numbers = torch.arange(turn.draw.start, turn.draw.stop, dtype=torch.float64)
        return ((numbers + 1) * self.share).floor() > (numbers * self.share).floor()

    def prediction(self, networks: Networks, turn: Turn, batch: Batch, rows: Tensor) -> Loss:
        """Return E w ‖(y_theta(eps, s) − SG[f + y'/lambda']) / t‖², the loss of the samples that predict.

        y' is a finite difference over delta, and w the adaptive weight. The residual is BOOT's (Eq. 15), (y_s − target)
        / kappa.
        """
        student, schedule, boot = networks["student"], self.schedule, self.path
        eps, condition = batch.noise[rows], batch.condition.index(rows)
        t = boot.times(turn, boot.t_min + boot.delta, boot.t_max)[rows]
        s = t - boot.delta
        with torch.no_grad():  # first: a checkpointed network runs its last pass with gradients once more
            y_t = student(eps, t, condition)
            f = boot.teacher.x0(noisy(y_t, eps, t, schedule), t, condition)
        y_s = student(eps, s, condition)
        # Differs from the paper, which learns y_t itself: by a difference towards t_min, every step would raise an
        # error of y_t 1/kappa − 1 fold, for what is known of the path is its end at t_max. f and 1/t are those of y_t.
        target = f + (y_t - y_s.detach()) * (1 / expand(schedule.kappa(t, s), y_t) - 1)
        residual = y_s - target
        velocity = (residual / expand(t, residual)).square().flatten(1).mean(1)
        weight = 1 / (velocity.detach() + self.floor)
        # On the output, the gradient of a sample is 2 w r / t²; norms per value, so that sizes agree.
        self._count(0, 2 * weight * velocity.detach().sqrt() / t)
        loss = (weight * velocity).sum() / len(batch.noise)
        size = residual.detach().square().flatten(1).mean(1).sqrt()
        return Loss(loss, {"prediction": velocity.detach().mean()}, {"residual": (t, size)})

    def balanced(self, networks: Networks, turn: Turn, batch: Batch, rows: Tensor) -> Loss:
        """Return the correction by the unnormalised velocity (f_psi − f) / r, scaled to the size of the prediction."""
        eps, condition = batch.noise[rows], batch.condition.index(rows)
        x = self.sample(networks, eps, condition)
        r = self.draw_levels(turn)[rows]
        renoise = turn.draw.normal("renoise", self.teacher.shape)[rows]
        x_r = noisy(x, renoise, r, self.schedule)
        loss, difference = self.compare(networks, x, x_r, r, condition)
        self._count(2, (difference / r.square()).sqrt())
        factor = self.balance * self.scale.to(loss.device) * len(x) / len(batch.noise)
        return Loss(factor * loss, {"correction": difference.mean()}, {"correction": (r, difference)})

    def compare(
        self, networks: Networks, x: Tensor, x_r: Tensor, r: Tensor, condition: Condition
    ) -> tuple[Tensor, Tensor]:
        """Return a scalar with the correction's gradient, and the denoisers' mean squared difference, (b,).

        The gradient with respect to x is the velocity's difference (f_psi − f) / r, divided by the number of values.
        """
        with torch.no_grad():
            f, f_psi = self.answers(networks, x_r, r, condition)
            velocity = (f_psi - f) / expand(r, x)
        return (velocity * x).mean(), (f_psi - f).square().flatten(1).mean(1)

    def draw_levels(self, turn: Turn) -> Tensor:
        """Return noise levels r, (b,), with a density that rises with r.

        High noise decides what a sample shows.
        """
        low, high = self.levels
        return low + (high - low) * turn.draw.uniform("r").sqrt()

    def _count(self, place: int, norms: Tensor) -> None:
        self._norms = self._norms.to(norms.device)
        total = norms.sum()
        self._norms[place : place + 2] += torch.stack([total, torch.full_like(total, len(norms))])

    def after_step(self, networks: Networks, step: int) -> None:
        """Find the scale of the next step's correction."""
        if "student" in self.turns(step):
            from accelerate.utils import reduce

            prediction, predictions, correction, corrections = reduce(self._norms, "sum")
            self.scale = prediction / predictions / (correction / corrections + self.floor)
            self._norms = torch.zeros_like(self._norms)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the scale of the next step's correction."""
        return {"scale": self.scale}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back the scale of the next step's correction."""
        self.scale = state["scale"]

    def edge(self, networks: Networks, batch: Batch) -> Loss:
        """Return BOOT's boundary loss alone: beta E d(f(x_T, t_max), y_theta(eps, t_max)), Eq. 9."""
        boot, eps = self.path, batch.noise
        t_max = torch.full((len(eps),), boot.t_max, device=eps.device)
        with torch.no_grad():
            f_T = boot.teacher.x0(self.schedule.start_scale(boot.t_max) * eps, t_max, batch.condition)
        return boot.boundary(networks["student"](eps, t_max, batch.condition), f_T)
