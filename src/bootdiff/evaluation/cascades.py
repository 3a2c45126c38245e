"""Rows of a cascade: both stages sampled by their teachers, beside the students' two calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from bootdiff.condition import Condition
from bootdiff.data.conditions import Cascade
from bootdiff.evaluation.rows import HEUN_STEPS, Candidate, Sampling, ddim_sampler, reference_path
from bootdiff.randomness import sample_noise
from bootdiff.solvers import trailing_times
from bootdiff.teachers import Teacher
from bootdiff.transfer import settled

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


def cascade_candidates(
    cascade: Cascade, base: Teacher, teacher: Teacher, steps: Sequence[int], heun: bool
) -> list[Candidate]:
    """DDIM k + k and Heun 50 + 50: the base's teacher and the second stage's, from the same noises as the students."""
    rows = [
        Candidate(
            f"DDIM {count} + {count}",
            "trailing",
            2 * count,
            _both(cascade, base, teacher, _ddim(count)),
            same_path=False,
        )
        for count in steps
    ]
    if heun:
        both = _both(cascade, base, teacher, lambda stage: reference_path(stage, *stage.t_range))
        rows.append(Candidate(f"Heun {HEUN_STEPS} + {HEUN_STEPS}", "even", 4 * HEUN_STEPS, both, same_path=False))
    return rows


def _ddim(count: int) -> Callable[[Teacher], Sampling]:
    return lambda stage: ddim_sampler(stage, trailing_times(count, *stage.t_range))


def _both(cascade: Cascade, base: Teacher, teacher: Teacher, sampler: Callable[[Teacher], Sampling]) -> Sampling:
    """Both stages by one kind of sampler, the second on what the first has made."""

    def sample(eps: Tensor, condition: Condition) -> Tensor:
        known = {name.removeprefix(BASE): value for name, value in condition.items() if name.startswith(BASE)}
        noise, again = known.pop("noise"), known.pop("augmentation")
        small = sampler(settled(base, eps.device))(noise, Condition(known))
        enlarged = condition.add(**cascade.stage.upscaled(small, again, cascade.level))
        return sampler(teacher)(eps, enlarged)

    return sample
