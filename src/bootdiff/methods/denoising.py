"""Plain denoising on images, Eq. 1: how a teacher is trained (Ho et al., 2020; Salimans & Ho, 2022)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.core.turn import Turn
from bootdiff.data.sources import Batch, Images
from bootdiff.methods.base import Learner, Loss, Networks, Stateless
from bootdiff.schedules import expand
from bootdiff.teachers import NetworkTeacher


class TextEncoder(nn.Module):
    """A text encoder of transformers in training, asked as the stock pipelines ask it.

    Args:
        model: gives the last hidden state first.
        masked: whether padding is hidden from it, as T5 has it.
    """

    def __init__(self, model: nn.Module, masked: bool = False) -> None:
        super().__init__()
        # Without dropout, which T5 has by default: it would not resume to the same bits.
        self.model, self.masked = model.requires_grad_(True).eval(), masked

    def forward(self, condition: Condition) -> Condition:
        """The condition with ``text`` in place of its ``tokens`` and ``mask``."""
        text = self.model(condition["tokens"], attention_mask=condition["mask"] if self.masked else None)[0]
        rest = {name: value for name, value in condition.items() if name not in ("tokens", "mask")}
        return Condition({**rest, "text": text})


class Denoiser(nn.Module):
    """A network in training, called the way its teacher will call it: (x_t, t) to the raw output in float32.

    Args:
        reading: the teacher-to-be.
        encoder: of captions, trained with it.
    """

    def __init__(self, reading: NetworkTeacher, encoder: TextEncoder | None = None) -> None:
        super().__init__()
        self.network, self.encoder = reading.network.requires_grad_(True), encoder
        self.call, self.timestep = reading.call, reading.schedule.timestep

    def embed(self, condition: Condition) -> Condition:
        """What the network takes of it: captions as embeddings."""
        return condition if self.encoder is None else self.encoder(condition)

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The raw output, (b, *shape)."""
        return self.call(self.network, x_t, self.timestep(t), self.embed(condition)).float()


@dataclass
class Denoising(Stateless):
    """Regression of the network's own prediction target, with t drawn from the schedule's table.

    Signal prediction is weighted by min(SNR, 5) + 1, which is what velocity regression amounts to, capped where the
    noise is low (Hang et al., 2023): unweighted, fine detail would count for almost nothing.
    """

    reading: NetworkTeacher
    source: Images
    teacher: Learner
    snr_cap: float = 5.0

    def learners(self) -> Mapping[str, Learner]:
        """The teacher-to-be."""
        return {"teacher": self.teacher}

    def frozen(self) -> Sequence[nn.Module]:
        """Nothing is frozen."""
        return ()

    def turns(self, step: int) -> Sequence[str]:
        """One turn a step."""
        return ("teacher",)

    def losses(self, networks: Networks, turn: Turn, batch: Batch) -> Sequence[Callable[[], Loss]]:
        """One term."""
        return [lambda: self.denoising(networks["teacher"], turn, batch)]

    def denoising(self, teacher: nn.Module, turn: Turn, batch: Batch) -> Loss:
        """E ‖out − target‖² at x_t = alpha_t x_0 + sigma_t eps."""
        schedule, draw = self.reading.schedule, turn.draw
        steps = draw.integers("t", schedule.num_timesteps)
        t = schedule.time(steps).to(draw.device)
        alpha, sigma = (expand(v, batch.images) for v in schedule.alpha_sigma(t))
        x_t = alpha * batch.images + sigma * batch.noise
        out = teacher(x_t, t, batch.condition)
        target = self.reading.prediction.output(batch.images, batch.noise, alpha, sigma)
        error = (out - target).square().flatten(1).mean(1)
        if self.reading.prediction.name == "sample":
            snr = (alpha / sigma).square().flatten()
            error = error * (torch.clamp(snr, max=self.snr_cap) + 1)
        return Loss(error.mean(), {"denoising": error.mean().detach()}, {"denoising": (t, error.detach())})
