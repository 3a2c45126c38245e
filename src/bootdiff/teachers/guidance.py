"""Classifier-free guidance as a teacher that wraps another one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.schedules import expand
from bootdiff.teachers.base import NO_CONDITION, Limited, Teacher, Wrapper


class Guided(Wrapper):
    """A teacher with guidance (Eq. 10): f̃(x_t, t, c) = f(x_t, t, n) + w (f(x_t, t, c) − f(x_t, t, n)).

    Both passes of the network are made as one batch.

    Args:
        inner: the teacher f, not limited: clipping comes after guidance, as in stock pipelines.
        null: the condition n, a batch of one, with the entries that differ from c (an empty prompt, the class "none").
        weight: the weight w; None reads it from the condition's entry ``guidance``, (b,).
        interval: the range (lowest, highest) of t that is guided (Kynkäänniemi et al., arXiv 2404.07724); None is
            everywhere.
    """

    def __init__(
        self,
        inner: Teacher,
        null: Condition,
        weight: float | None = None,
        interval: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(inner)
        if not isinstance(null, Condition):
            raise BootdiffError(
                "null should be a condition of one sample, such as bootdiff.Classes([10]).listed(0, 0, 1), got "
                f"{type(null).__name__}."
            )
        self.weight, self.interval, self.entries = weight, interval, tuple(null)
        for name, value in null.items():
            self.register_buffer(f"null_{name}", value, persistent=False)

    @property
    def null(self) -> Condition:
        """The condition n that guidance leads away from, a batch of one."""
        return Condition({name: getattr(self, f"null_{name}") for name in self.entries})

    def x0(self, x_t: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """Return the guided prediction f̃, (b, *shape) in float32."""
        both = Condition.cat([self.unconditional(condition), condition])
        f_n, f_c = self.inner.x0(torch.cat([x_t, x_t]), torch.cat([t, t]), both).chunk(2)
        return self.combine(f_n, f_c, t, condition)

    def unconditional(self, condition: Condition) -> Condition:
        """Return the condition c with the entries of n in place of its own, in the same batch size; others stay."""
        null = {name: getattr(self, f"null_{name}").expand(len(value), *[-1] * (value.ndim - 1))
                for name, value in condition.items() if name in self.entries}  # fmt: skip
        return condition.add(**null)

    def combine(self, f_n: Tensor, f_c: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Return f̃ (b, *shape) from the inner teacher's answers to n and to c, each (b, *shape)."""
        weight = condition["guidance"] if self.weight is None else torch.full_like(t, self.weight, dtype=torch.float32)
        if self.interval is not None:
            inside = (t >= self.interval[0]) & (t <= self.interval[1])
            weight = torch.where(inside, weight, torch.ones_like(weight))
        # Eq. 10
        return f_n + expand(weight.float(), f_c) * (f_c - f_n)


def guided_within(teacher: Teacher, interval: Sequence[float] | None) -> Teacher:
    """Return ``teacher`` with its guidance limited to an interval of times.

    It comes back as it is where there is no interval or no guidance.
    """
    inner = teacher.inner if isinstance(teacher, Limited) else teacher
    if interval is None or not isinstance(inner, Guided):
        return teacher
    within = Guided(inner.inner, inner.null, inner.weight, (interval[0], interval[1]))
    return Limited(within, teacher.limit) if isinstance(teacher, Limited) else within


def guidance_of(teacher: Teacher) -> Guided | None:
    """Return the guidance among a teacher's wrappers; None where there is none."""
    while isinstance(teacher, Wrapper):
        if isinstance(teacher, Guided):
            return teacher
        teacher = teacher.inner
    return None


def weight_of(teacher: Teacher) -> float | None:
    """Return the weight of a teacher's guidance, 1 without guidance; None where the condition holds the weight."""
    own = guidance_of(teacher)
    return 1.0 if own is None else own.weight


def calls_an_answer(teacher: Teacher) -> int:
    """Return how often the network is evaluated for one x_0 of one sample: twice with guidance, else once."""
    return 1 if guidance_of(teacher) is None else 2


def guided(teacher: Teacher, null: Condition, weight: float | None = None) -> Teacher:
    """Return ``teacher`` with guidance, and with its limit applied after it."""
    if isinstance(teacher, Limited):
        return Limited(Guided(teacher.inner, null, weight), teacher.limit)
    return Guided(teacher, null, weight)
