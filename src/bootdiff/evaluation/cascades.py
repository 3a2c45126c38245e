"""Rows of a cascade: both stages sampled by their teachers, beside the students' two calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from bootdiff.condition import Condition
from bootdiff.data.conditions import Cascade
from bootdiff.evaluation.rows import Candidate
from bootdiff.randomness import sample_noise
from bootdiff.solvers import ddim, trailing_times
from bootdiff.teachers import Teacher

#: entries that a base stage's condition has beside the second stage's own
BASE = "base "


@dataclass(frozen=True)
class Remembered(Cascade):
    """A cascade whose listed conditions also hold what another base stage would start from."""

    def listed(self, seed: int, start: int, stop: int) -> Condition:
        """With the base's noises and conditions, and the noise on its images."""
        own = self.base_conditions.listed(seed, start, stop)
        noise = sample_noise(seed, start, stop, self.base_shape)
        again = sample_noise(seed, start, stop, self.stage.shape, after=self.stage.shape)
        known = {BASE + "noise": noise, BASE + "augmentation": again, **{BASE + key: v for key, v in own.items()}}
        listed = super().listed(seed, start, stop)
        return listed.add(**{name: value.to(listed["image"].device) for name, value in known.items()})


def cascade_candidates(cascade: Cascade, base: Teacher, teacher: Teacher, steps: Sequence[int]) -> list[Candidate]:
    """DDIM k + k: the base's teacher and the second stage's, from the same noises as the students."""
    return [
        Candidate(f"DDIM {count} + {count}", "trailing", 2 * count, _both(cascade, base, teacher, count), False)
        for count in steps
    ]


def _both(cascade: Cascade, base: Teacher, teacher: Teacher, count: int):
    first, second = (trailing_times(count, *stage.t_range) for stage in (base, teacher))

    def sample(eps: Tensor, condition: Condition) -> Tensor:
        known = {name.removeprefix(BASE): value for name, value in condition.items() if name.startswith(BASE)}
        noise, again = known.pop("noise"), known.pop("augmentation")
        small = ddim(base.to(eps.device), noise, first, Condition(known))
        return ddim(teacher, eps, second, condition.add(**cascade.stage.upscaled(small, again, cascade.level)))

    return sample
