"""Table rows of a cascade whose two stages are both sampled by their teachers, beside the students' two calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.core.randomness import sample_noise
from bootdiff.core.transfer import settled
from bootdiff.data.conditions import Cascade
from bootdiff.samplers.rows import HEUN_STEPS, PATH, Candidate, Row, Sampling, path_end, reference_path
from bootdiff.samplers.stock import candidates, deterministic
from bootdiff.teachers import Teacher
from bootdiff.teachers.guidance import calls_an_answer

#: begins the names of entries that belong to the base stage, in a condition that holds the second stage's, too
BASE = "base "


@dataclass(frozen=True)
class Remembered(Cascade):
    """A cascade whose listed conditions also hold what the base stage's teacher starts from."""

    def listed(self, seed: int, start: int, stop: int) -> Condition:
        """Return the conditions start … stop − 1, with the base's noises and conditions and the noise on its images."""
        own = self.base_conditions.listed(seed, start, stop)
        noise = sample_noise(seed, start, stop, self.base_shape)
        again = sample_noise(seed, start, stop, self.stage.shape, after=self.stage.shape)
        known = {BASE + "noise": noise, BASE + "augmentation": again, **{BASE + key: v for key, v in own.items()}}
        listed = super().listed(seed, start, stop)
        return listed.add(**{name: value.to(listed["image"].device) for name, value in known.items()})


@dataclass(frozen=True)
class BothStages:
    """A cascade's two teachers, sampled by diffusers' samplers.

    Both stages use the same sampler with the same number of steps.

    Args:
        cascade: the cascade; its listed conditions hold what the base stage starts from.
        base, teacher: the teachers of the first stage and of the second.
    """

    cascade: Remembered
    base: Teacher
    teacher: Teacher

    def named(self, name: str, steps: int) -> list[Candidate]:
        """Return one sampler with so many steps in each stage, once for every spacing that both stages take."""
        first = {one.row.spacing: one for one in candidates(self.base, name, steps)}
        second = candidates(self.teacher, name, steps)
        return [self._both(first[one.row.spacing], one) for one in second if one.row.spacing in first]

    def within(self, calls: int) -> Iterator[Candidate]:
        """Yield every sampler and spacing with as many steps in each stage as fit into so many network calls."""
        cost = calls_an_answer(self.base) + calls_an_answer(self.teacher)
        for name in deterministic(self.teacher):
            for steps in range(calls // cost, 0, -1):
                fitting = [one for one in self.named(name, steps) if one.row.calls <= calls]
                if fitting:
                    yield from fitting
                    break

    @property
    def path(self) -> Candidate:
        """Return the path's exact end: 50 Heun steps in each stage."""
        stages = (self.base, self.teacher)
        calls = sum(path_end(stage, stage.t_range).row.calls for stage in stages)
        first, second = (reference_path(stage, *stage.t_range) for stage in stages)
        row = Row("teacher", PATH, HEUN_STEPS, calls, "even", stage="both")
        return Candidate(row, self._sampling(first, second), same_path=False)

    def _both(self, first: Candidate, second: Candidate) -> Candidate:
        row = replace(second.row, calls=first.row.calls + second.row.calls, stage="both")
        return Candidate(row, self._sampling(first.sample, second.sample), same_path=False)

    def _sampling(self, first: Sampling, second: Sampling) -> Sampling:
        """Return a function that samples the first stage, then the second stage on the first one's images."""

        def sample(eps: Tensor, condition: Condition) -> Tensor:
            known = {name.removeprefix(BASE): value for name, value in condition.items() if name.startswith(BASE)}
            noise, again = known.pop("noise"), known.pop("augmentation")
            settled(self.base, eps.device)
            small = first(noise, Condition(known))
            return second(eps, condition.add(**self.cascade.stage.upscaled(small, again, self.cascade.level)))

        return sample
