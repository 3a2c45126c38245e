"""The boundary of consistency students: how the answer near t_min is held at the noisy sample itself.

An answer is ``g = skip(t) x_t + out(t) x_0(x_t, t)``, with skip = 1 / alpha and out = 0 at t_min, so that there g is
the sample, whatever the network says (Song et al., arXiv 2303.01469, Section 3). Where a stock scheduler has a boundary
of its own, a new student gets that one, so that the scheduler takes its steps (``boundary_named``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bootdiff.core.device import in_float64
from bootdiff.core.errors import BootdiffError, choose, shown
from bootdiff.schedules import EDM, BetaTable, Schedule
from bootdiff.storage.reading import is_number
from bootdiff.teachers.prediction import Preconditioned
from bootdiff.teachers.reading import Reading


class Boundary(ABC):
    """The two factors of a consistency student's answer, as functions of t."""

    #: the name that a student's card gives it
    name: str

    @abstractmethod
    def factors(self, t: Tensor, t_min: float, schedule: Schedule) -> tuple[Tensor, Tensor]:
        """Return (skip, out), each (b,) in float64, for times t (b,)."""

    def left(self, t_min: float, schedule: Schedule) -> float:
        """Return sigma / alpha of the noise that is left in the answers: that of the samples at t_min."""
        return schedule.lambda_(torch.tensor([t_min], dtype=torch.float64)).exp().item()

    @property
    def as_json(self) -> dict[str, Any]:
        """The boundary as a student's card holds it."""
        return {"name": self.name, **vars(self)}


@dataclass(frozen=True)
class Skip(Boundary):
    """The factors of consistency models, in the noise-to-signal ratio n = sigma / alpha.

    With m = n − n(t_min): skip = sigma_data² / (m² + sigma_data²) of x_t / alpha and out = 1 − skip of x_0, which is
    exact at t_min for every schedule. Differs from the paper, whose out multiplies a network that is preconditioned
    once more: here the reading of the network has that already.

    Args:
        sigma_data: the standard deviation of the data, about at which the weight passes from the sample to the network.
    """

    sigma_data: float = 0.5
    name = "skip"

    def factors(self, t: Tensor, t_min: float, schedule: Schedule) -> tuple[Tensor, Tensor]:
        """Return (skip, out), each (b,) in float64."""
        alpha, sigma = (in_float64(v) for v in schedule.alpha_sigma(t))
        first = torch.tensor([t_min], dtype=torch.float64, device=alpha.device)
        low_alpha, low_sigma = (v.double() for v in schedule.alpha_sigma(first))
        # At t = 1 of rectified flow alpha is 0, and the network decides alone.
        ratio = sigma / alpha.clamp(min=1e-12) - low_sigma / low_alpha
        share = self.sigma_data**2 / (ratio.square() + self.sigma_data**2)
        return share / alpha.clamp(min=1e-12) * (alpha > 1e-12), 1 - share


@dataclass(frozen=True)
class LcmSkip(Boundary):
    """The factors of LCMScheduler, on a table of betas (Luo et al., arXiv 2310.04378, Appendix D).

    With m = 10 · (timestep − timestep of t_min): skip = sigma_data² / (m² + sigma_data²), and out = m / sqrt(m² +
    sigma_data²). The scheduler counts from timestep 0, which t_min usually is; a higher one is held here as well, and
    changes less than 1e-5 from the 20th timestep above it on. As the scheduler does, it takes answers to be free of
    noise.
    """

    sigma_data: float = 0.5
    scaling: float = 10.0
    name = "lcm"

    def factors(self, t: Tensor, t_min: float, schedule: Schedule) -> tuple[Tensor, Tensor]:
        """Return (skip, out), each (b,) in float64."""
        m = self.scaling * (in_float64(t) - t_min).clamp(min=0) * (schedule.num_timesteps - 1)
        spread = m.square() + self.sigma_data**2
        alpha = schedule.alpha_sigma(torch.tensor([t_min], dtype=torch.float64))[0].item()
        return self.sigma_data**2 / spread / alpha, m / spread.sqrt()

    def left(self, t_min: float, schedule: Schedule) -> float:
        """Return 0, as the scheduler does: what noise is left at timestep 0 counts for nothing."""
        return 0.0


@dataclass(frozen=True)
class KarrasSkip(Boundary):
    """The factors of CMStochasticIterativeScheduler, for EDM's noise levels (Song et al., Appendix C).

    There ``skip = sigma_data² / (d² + sigma_data²)`` with d = sigma − sigma(t_min), and the *network* is multiplied by
    ``d sigma_data / sqrt(sigma² + sigma_data²)``. Written with EDM's own x_0 instead of the network, as every reading
    is here, that is out = d / sigma, and skip is less by d / sigma · sigma_data² / (sigma² + sigma_data²).

    Args:
        sigma_data: that of the network's preconditioning.
    """

    sigma_data: float = 0.5
    name = "karras"

    def factors(self, t: Tensor, t_min: float, schedule: Schedule) -> tuple[Tensor, Tensor]:
        """Return (skip, out), each (b,) in float64."""
        _, sigma = (in_float64(v) for v in schedule.alpha_sigma(t))
        low = schedule.alpha_sigma(torch.tensor([t_min], dtype=torch.float64))[1].item()
        variance, out = self.sigma_data**2, ((sigma - low) / sigma).clamp(min=0)
        skip = variance / ((sigma - low).square() + variance)
        return skip - out * variance / (sigma.square() + variance), out


class Naive(Boundary):
    """No boundary: the answer is the network's x_0 at every time."""

    name = "naive"

    def factors(self, t: Tensor, t_min: float, schedule: Schedule) -> tuple[Tensor, Tensor]:
        """Return (0, 1), each (b,) in float64."""
        one = torch.ones_like(in_float64(t))
        return torch.zeros_like(one), one

    def left(self, t_min: float, schedule: Schedule) -> float:
        """Return 0: the network's x_0 at t_min has no noise."""
        return 0.0


#: the range of a boundary's numbers, whose squares must be numbers as well
LEAST, MOST = 1e-6, 1e6
BOUNDARIES: Mapping[str, type[Boundary]] = {kind.name: kind for kind in (Skip, LcmSkip, KarrasSkip, Naive)}


def boundary_named(word: str, reading: Reading) -> Boundary:
    """Return the boundary that a setting asks for: ``naive``, or ``skip``.

    By skip connections it is that of the stock scheduler with which such a student takes several steps, LCMScheduler's
    on a table of betas and CMStochasticIterativeScheduler's for EDM; elsewhere it is that of consistency models in
    sigma / alpha.
    """
    if word == "naive":
        return Naive()
    if isinstance(reading.schedule, BetaTable):
        return LcmSkip()
    if isinstance(reading.schedule, EDM) and isinstance(reading.prediction, Preconditioned):
        return KarrasSkip(reading.prediction.sigma_data)
    return Skip()


def boundary_from(words: Any) -> Boundary:
    """Return the boundary that a student's card describes.

    Raises:
        BootdiffError: if there is none of this name, or its numbers are others.
    """
    if not isinstance(words, Mapping):
        raise BootdiffError(f"a boundary has a name and numbers, got {shown(words)}.")
    kind = BOUNDARIES[choose(str(words.get("name")), BOUNDARIES, "boundary")]
    given = {key: value for key, value in words.items() if key != "name"}
    if not all(is_number(value) and LEAST <= value <= MOST for value in given.values()):
        raise BootdiffError(f"a boundary expects positive numbers from {LEAST:g} to {MOST:g}, got {shown(given)}.")
    try:
        return kind(**{key: float(value) for key, value in given.items()})
    except TypeError as error:
        raise BootdiffError(f"the boundary {kind.name} has no such numbers: {shown(list(given))}.") from error
