"""How many noises a run is watched with, and how often, so that it costs a small share of the run's passes.

A pass is one call of a network on one sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bootdiff.methods.settings import DistillationSettings

#: the number of noises whose path is solved exactly, the number of Heun steps for it, and the number of Euler steps
#: for the other noises
EXACT, EXACT_STEPS, OTHER_STEPS = 64, 16, 12
#: the calls along a path by which its straightness is measured
STRAIGHT_STEPS = 8
#: the calls of the student, for each noise whose path is solved exactly, that its probes take at a look
PROBED = {"boundary": 1, "consistency": 1, "straightness": STRAIGHT_STEPS}
#: the numbers of noises that are tried, and the largest number of values that all samples may have
COUNTS, MOST_VALUES = (512, 256, 128, 64, 32, 16, 8, 4), 2**23
#: the largest number of looks, and the smallest from which a run's end can be told
LOOKS, FEWEST_LOOKS = 24, 12
#: with fewer noises than this a look says too little to be made unasked
FEWEST_NOISES = 32
#: the share of the run's passes that looks may take
SHARE = 0.02


@dataclass(frozen=True)
class WatchPlan:
    """How many noises a run is watched with, and how often.

    Args:
        count: the number of noises, which is even; the first half and the second share their conditions.
        every: the number of steps between looks.
    """

    count: int
    every: int

    @classmethod
    def of(
        cls,
        settings: DistillationSettings,
        shape: Sequence[int],
        processes: int = 1,
        shown: bool = False,
        probes: Sequence[str] = ("boundary",),
        calls: int = 1,
    ) -> WatchPlan | None:
        """Return the plan that two in a hundred of the run's passes pay for.

        It is None where they pay for too little, or where looks are switched off.

        ``watch_every`` and ``stop_when`` ask for looks whatever they cost. While one process looks, the others wait,
        so a look costs as much on each of them.

        Args:
            shown: whether the teacher is shown every sample (``TeacherFeatures``).
            probes: the names of the student's probes.
            calls: the student's calls for an image.
        """
        if settings.watch_every == 0:
            return None
        budget = SHARE * settings.steps * settings.batch_size * settings.passes / processes
        guided = settings.guidance_scale is not None or settings.guidance_range is not None
        asked = settings.watch_every is not None or settings.stop_when == "converged"
        most = max(COUNTS[-1], MOST_VALUES // math.prod(shape))
        for count in (count for count in COUNTS if count <= most):
            looks = Price(count, guided, shown, sum(PROBED[name] for name in probes), calls).looks(budget)
            pays = looks >= FEWEST_LOOKS and count >= FEWEST_NOISES
            if pays or (asked and count <= EXACT):
                looks = max(looks, FEWEST_LOOKS)
                return cls(count, settings.watch_every or max(1, settings.steps // looks))
        return None


@dataclass(frozen=True)
class Price:
    """The price of watching, in network passes.

    Args:
        count: the number of noises.
        guided: whether every answer of the teacher takes two passes.
        shown: whether the teacher is shown every sample.
        probed: the calls of the student for each noise whose path is solved exactly, beside its samples.
        calls: the student's calls for an image.
    """

    count: int
    guided: bool
    shown: bool
    probed: int = 1
    calls: int = 1

    @property
    def first(self) -> int:
        """Return the passes before the first step.

        They are the teacher's path from every noise, and a pass over each end if the teacher is shown samples.
        """
        exact = min(self.count, EXACT)
        steps = exact * (2 * EXACT_STEPS + 1) + (self.count - exact) * (OTHER_STEPS + 1)
        return (2 if self.guided else 1) * steps + self.shown * self.count

    @property
    def look(self) -> int:
        """Return the passes of a look.

        They are the student's samples, its probes, and a pass over the samples if the teacher is shown them.
        """
        return self.calls * self.count + self.probed * min(self.count, EXACT) + self.shown * self.count

    def looks(self, budget: float) -> int:
        """Return how many looks a budget of passes pays for; negative if it does not even pay for the paths."""
        return min(LOOKS, int((budget - self.first) / self.look))
