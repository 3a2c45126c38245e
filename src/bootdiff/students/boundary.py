"""The boundary of consistency students: how the answer near t_min is held at the noisy sample itself.

An answer is ``g = skip(t) x_t + out(t) x_0(x_t, t)``, with skip = 1 / alpha and out = 0 at t_min, so that there g is
the sample, whatever the network says (Song et al., arXiv 2303.01469, Section 3).
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
from bootdiff.schedules import Schedule
from bootdiff.storage.reading import is_number


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
BOUNDARIES: Mapping[str, type[Boundary]] = {"skip": Skip, "naive": Naive}


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
