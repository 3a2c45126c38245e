"""The fake denoiser ``f_psi``, which learns what the student's own samples look like behind noise.

A correction compares it with the teacher: where both agree at every noise level, the student's samples are distributed
as the teacher's (Yin et al., arXiv 2311.18828; Zhou et al., arXiv 2404.04057).

Source: docs/method.md, "The fake denoiser".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.schedules import expand
from bootdiff.students.growth import GrownNetwork, grow
from bootdiff.students.lora import LowRank
from bootdiff.students.plain import PlainNetwork
from bootdiff.teachers import NetworkTeacher, Teacher

#: the cap of the weight min(SNR, cap) + 1, as in the training of teachers
SNR_CAP = 5.0


class Fake(nn.Module):
    """A denoiser in training, which turns (x_r, r) into x_0 in float32.

    The network's output is read as the teacher's is.

    Its network is of the student's kind, so that it takes whatever the student takes: the guidance weight, too, because
    samples of another weight are distributed differently.

    Args:
        network: the network, called with r as its own time and also as its target time.
        teacher: the teacher that gives the schedule and says what the output means.
    """

    def __init__(self, network: GrownNetwork, teacher: Teacher) -> None:
        super().__init__()
        self.network, self.schedule, self.factors = network, teacher.schedule, teacher.denoiser.reading.factors

    @classmethod
    def from_teacher(cls, teacher: Teacher, guided: bool = False, rank: int = 0) -> Fake:
        """Return a fake that equals the teacher without guidance.

        For an analytic teacher it is a network that starts at zero.

        Args:
            guided: whether it takes a guidance weight.
            rank: the rank of low-rank updates to the teacher's own weights, which then serve both; 0 copies the
                weights.

        Raises:
            BootdiffError: if the network cannot be copied, or has no layer for such updates.
        """
        denoiser = teacher.denoiser
        if not isinstance(denoiser, NetworkTeacher):
            low, high = denoiser.schedule.timestep(torch.tensor(denoiser.t_range)).tolist()
            return cls(PlainNetwork(denoiser.shape, (low, high)), teacher)
        return cls(LowRank(denoiser, rank) if rank else grow(denoiser, guided), teacher)

    def forward(self, x_r: Tensor, r: Tensor, condition: Condition) -> Tensor:
        """Return the estimate f_psi(x_r, r) of x_0, (b, *shape)."""
        scale, a, b = (expand(v.to(x_r.device, torch.float32), x_r) for v in self.factors(r))
        timestep = self.schedule.timestep(r)
        return a * x_r + b * self.network(scale * x_r, timestep, timestep, condition).float()

    def weight(self, r: Tensor) -> Tensor:
        """Return the weight of the squared error of x_0 at r, (b,).

        It is 1 / b², which makes it the error of the network's own output. Where that output is x_0 itself, it is
        min(SNR, 5) + 1, as in the training of teachers (``Denoising``). It is never much more than SNR + 1, which is
        the weight of a score's error at low noise.
        """
        b = self.factors(r)[2]
        snr = torch.exp(-2 * self.schedule.lambda_(r))
        output = torch.minimum(b.square().clamp(min=1e-12).reciprocal(), SNR_CAP * (snr + 1))
        return torch.where(b == 1, snr.clamp(max=SNR_CAP) + 1, output).to(r.device, torch.float32)
