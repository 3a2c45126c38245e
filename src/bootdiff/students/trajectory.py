"""The trajectory student, which answers for all times of the teacher's path at once.

DFNO (Zheng et al., arXiv 2211.13449) has such students. Source: docs/method.md, "Kinds of students".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError, shown
from bootdiff.core.guidance import Plain
from bootdiff.solvers import even_times
from bootdiff.storage.reading import is_number
from bootdiff.students.growth import GrownNetwork
from bootdiff.students.mixing import add_mixing
from bootdiff.students.path import PathStudent
from bootdiff.students.shift import keep_when_checkpointed
from bootdiff.teachers.base import NO_CONDITION, Teacher
from bootdiff.teachers.one_call import OneCall

#: the number of times where nothing else is said, and the most that there may be
TIMES, MOST_TIMES = 8, 1000


class TrajectoryStudent(PathStudent):
    """A student that maps noise to the states y_t at M times, which its network mixes by temporal Fourier layers.

    It begins as a path student does. One call evaluates the network once for every time, so it counts as M calls.
    """

    kind = "trajectory"

    def __init__(
        self,
        network: GrownNetwork,
        teacher: Teacher,
        t_min: float,
        t_max: float,
        call: OneCall | None = None,
        guidance: Plain = None,
    ) -> None:
        super().__init__(network, teacher, t_min, t_max, call, guidance)
        self.times: Sequence[float] = ()
        self.answer_at(even_times(TIMES - 1, t_min, t_max))

    def answer_at(self, times: Sequence[float]) -> None:
        """Choose the times, falling from t_max to t_min; layers for another number of times begin anew.

        Raises:
            BootdiffError: if there are fewer than two or more than 1,000, or they do not fall from t_max to t_min.
        """
        if len(times) > MOST_TIMES:
            raise BootdiffError(f"a trajectory has at most {MOST_TIMES:,} times, got {len(times):,}.")
        falls = all(a > b for a, b in pairwise(times))
        ends = len(times) > 1 and abs(times[0] - self.t_max) < 1e-6 and abs(times[-1] - self.t_min) < 1e-6
        if not (falls and ends):
            raise BootdiffError(
                f"a trajectory's times should fall from t_max = {self.t_max:g} to t_min = {self.t_min:g}, got "
                f"{shown(list(times))}."
            )
        if len(times) != len(self.times):
            self._here = add_mixing(self.network, len(times))
        self.times = tuple(times)

    def forward(self, eps: Tensor, t: Tensor | None = None, condition: Condition = NO_CONDITION) -> Tensor:
        """Return the states at all times, (b, M, *shape) in float32, of noises (b, *shape).

        Args:
            t: times (b,), for the state nearest to each sample's own time only, (b, *shape).
        """
        count, batch = len(self.times), len(eps)
        times = torch.tensor(self.times, dtype=torch.float32, device=eps.device)
        noises = eps.repeat(count, *[1] * (eps.ndim - 1))
        keep_when_checkpointed(self.network, self._here)
        with self._here.by(count):
            states = super().forward(noises, times.repeat_interleave(batch), condition.repeat(count))
        states = states.reshape(count, batch, *eps.shape[1:])
        if t is None:
            return states.transpose(0, 1)
        nearest = (t[None] - times[:, None]).abs().argmin(0)
        return states[nearest, torch.arange(batch, device=eps.device)]

    @property
    def evaluations(self) -> int:
        """How often its network is evaluated for an image: once for every time."""
        return len(self.times)

    def fold(self, weight: float | None = None) -> nn.Module:
        """Refuse to fold: all times are answered for together, which no network of the teacher's class does.

        Raises:
            BootdiffError: always.
        """
        raise BootdiffError(
            "a trajectory student mixes all times of its path, which no network of its teacher's class can do, so it "
            "is neither folded nor exported; use its student-path folder."
        )

    @property
    def facts(self) -> Mapping[str, Any]:
        """What its card must hold beside every student's facts: the times."""
        return {"times": list(self.times)}

    def take(self, facts: Mapping[str, Any]) -> None:
        """Take the times from a card."""
        times = facts.get("times")
        if not isinstance(times, list) or not all(map(is_number, times)):
            raise BootdiffError(f"a trajectory student's card should hold its times, got {shown(times)}.")
        self.answer_at(times)
