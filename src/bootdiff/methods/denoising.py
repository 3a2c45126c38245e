"""Plain denoising on images, Eq. 1, by which a teacher is trained (Ho et al., 2020; Salimans & Ho, 2022)."""

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
    """A text encoder of transformers in training, called as the stock pipelines call it.

    Args:
        model: the encoder, whose first output is its last hidden state.
        masked: whether padding is hidden from the encoder, as it is from T5.
    """

    def __init__(self, model: nn.Module, masked: bool = False) -> None:
        super().__init__()
        # Without dropout, which T5 has by default: it would not resume to the same bits.
        self.model, self.masked = model.requires_grad_(True).eval(), masked

    def forward(self, condition: Condition) -> Condition:
        """Return the condition with embeddings ``text`` in place of its ``tokens`` and ``mask``."""
        text = self.model(condition["tokens"], attention_mask=condition["mask"] if self.masked else None)[0]
        rest = {name: value for name, value in condition.items() if name not in ("tokens", "mask")}
        return Condition({**rest, "text": text})


class Denoiser(nn.Module):
    """A network in training, called as its teacher will call it: it turns (x_t, t) into the raw output in float32.

    Args:
        reading: the teacher that the network becomes.
        encoder: the encoder of captions that is trained with it, if there is one.
    """

    def __init__(self, reading: NetworkTeacher, encoder: TextEncoder | None = None) -> None:
        super().__init__()
        self.network, self.encoder = reading.network.requires_grad_(True), encoder
        self.call, self.timestep = reading.call, reading.schedule.timestep

    def embed(self, condition: Condition) -> Condition:
        """Return the condition as the network takes it, with captions as embeddings."""
        return condition if self.encoder is None else self.encoder(condition)

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Return the network's raw output, (b, *shape)."""
        return self.call(self.network, x_t, self.timestep(t), self.embed(condition)).float()


@dataclass
class Denoising(Stateless):
    """The objective of a teacher: regression of its network's prediction target, at times from the schedule's table.

    Where the network predicts the signal, the error is weighted by min(SNR, 5) + 1. That equals regression of the
    velocity, with a cap where the noise is low (Hang et al., 2023). Without a weight, fine detail would count for
    almost nothing.
    """

    reading: NetworkTeacher
    source: Images
    teacher: Learner
    snr_cap: float = 5.0

    def learners(self) -> Mapping[str, Learner]:
        """Return the learners by name: the network that becomes the teacher."""
        return {"teacher": self.teacher}

    def frozen(self) -> Sequence[nn.Module]:
        """Return no networks, because none is frozen."""
        return ()

    def turns(self, step: int) -> Sequence[str]:
        """Return the names of a step's turns: one, the teacher's."""
        return ("teacher",)

    def losses(self, networks: Networks, turn: Turn, batch: Batch) -> Sequence[Callable[[], Loss]]:
        """Return the terms of the loss: one, the denoising."""
        return [lambda: self.denoising(networks["teacher"], turn, batch)]

    def denoising(self, teacher: nn.Module, turn: Turn, batch: Batch) -> Loss:
        """Return E ‖out − target‖² at x_t = alpha_t x_0 + sigma_t eps."""
        schedule, draw = self.reading.schedule, turn.draw
        steps = draw.integers("t", schedule.num_timesteps)
        t = schedule.time(steps).to(draw.device)
        alpha, sigma = (expand(v, batch.data) for v in schedule.alpha_sigma(t))
        x_t = alpha * batch.data + sigma * batch.noise
        out = teacher(x_t, t, batch.condition)
        target = self.reading.prediction.output(batch.data, batch.noise, alpha, sigma)
        error = (out - target).square().flatten(1).mean(1)
        if self.reading.prediction.name == "sample":
            snr = (alpha / sigma).square().flatten()
            error = error * (torch.clamp(snr, max=self.snr_cap) + 1)
        return Loss(error.mean(), {"denoising": error.mean().detach()}, {"denoising": (t, error.detach())})
