"""How many noises a run is watched with, and how often: as much as a small share of its passes pays for.

A pass is one sample through one network, once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bootdiff.methods.settings import DistillationSettings

#: noises whose path is solved exactly, by this many Heun steps; the others' by Euler's
EXACT, EXACT_STEPS, OTHER_STEPS = 64, 16, 12
#: noises that are tried, and values that their samples may have in all
COUNTS, MOST_VALUES = (512, 256, 128, 64, 32, 16, 8, 4), 2**23
#: looks at most, and looks without which a run's end cannot be told
LOOKS, FEWEST_LOOKS = 24, 12
#: noises below which a look says too little to be made unasked
FEWEST_NOISES = 32
#: of the run's passes
SHARE = 0.02


@dataclass(frozen=True)
class WatchPlan:
    """How many noises, and how often.

    Args:
        count: noises, even; the first half and the second share their conditions.
        every: steps between looks.
    """

    count: int
    every: int

    @classmethod
    def of(
        cls, settings: DistillationSettings, shape: Sequence[int], processes: int = 1, shown: bool = False
    ) -> WatchPlan | None:
        """What two in a hundred of the passes pay for; None where they pay for too little, or nothing is asked.

        ``watch_every`` and ``stop_when`` ask for looks whatever they cost. While one process looks the others wait, so
        that each of several pays.

        Args:
            shown: whether the teacher is shown every sample (``TeacherFeatures``).
        """
        if settings.watch_every == 0:
            return None
        budget = SHARE * settings.steps * settings.batch_size * settings.passes / processes
        guided = settings.guidance_scale is not None or settings.guidance_range is not None
        asked = settings.watch_every is not None or settings.stop_when == "converged"
        most = max(COUNTS[-1], MOST_VALUES // math.prod(shape))
        for count in (count for count in COUNTS if count <= most):
            looks = Price(count, guided, shown).looks(budget)
            pays = looks >= FEWEST_LOOKS and count >= FEWEST_NOISES
            if pays or (asked and count <= EXACT):
                looks = max(looks, FEWEST_LOOKS)
                return cls(count, settings.watch_every or max(1, settings.steps // looks))
        return None


@dataclass(frozen=True)
class Price:
    """What watching costs, in passes.

    Args:
        count: noises.
        guided: whether the teacher's every answer takes two.
        shown: whether the teacher is shown every sample.
    """

    count: int
    guided: bool
    shown: bool

    @property
    def first(self) -> int:
        """Before the first step: the teacher's path from every noise, and a pass over its end where it is shown."""
        exact = min(self.count, EXACT)
        steps = exact * (2 * EXACT_STEPS + 1) + (self.count - exact) * (OTHER_STEPS + 1)
        return (2 if self.guided else 1) * steps + self.shown * self.count

    @property
    def look(self) -> int:
        """At each look: the student's samples, its answers at t_max, and a pass over the samples where shown."""
        return self.count + min(self.count, EXACT) + self.shown * self.count

    def looks(self, budget: float) -> int:
        """How many a budget pays for; negative where it does not even pay for the paths."""
        return min(LOOKS, int((budget - self.first) / self.look))
