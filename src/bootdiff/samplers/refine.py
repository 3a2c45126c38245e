"""Refinement: the student's image is noised again, and a few calls of its teacher finish it.

The same is done with a user's picture of which a part must stay (cf. SDEdit, arXiv 2108.01073).

Source: docs/method.md, "More than one call".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.core.transfer import settled
from bootdiff.data.decode import open_image
from bootdiff.samplers.base import Sampler
from bootdiff.samplers.operators import Mask, Operator, Strokes
from bootdiff.schedules import Schedule
from bootdiff.solvers import ddim_step, noisy, trailing_times
from bootdiff.teachers import Teacher
from bootdiff.teachers.adapters.base import Adapter
from bootdiff.teachers.base import NO_CONDITION

#: sigma / alpha of the noise that is added to a student's image to refine it, and to a picture to edit it
REFINED, EDITED = 1 / 3, 2.0


@dataclass(frozen=True)
class Kept:
    """A picture that samples must agree with.

    Args:
        sample: the picture as the network sees it, (1, *shape): pixels in [−1, 1], or latents.
        operator: the part of it that is kept; ``Strokes`` keeps nothing, so that the picture is only the start.
    """

    sample: Tensor
    operator: Operator = field(default_factory=Strokes)

    @property
    def is_start(self) -> bool:
        """Whether the picture is only what sampling starts from, in place of the student's image."""
        return isinstance(self.operator, Strokes)


@dataclass(frozen=True)
class Refined:
    """A student followed by k steps of its teacher, which makes k + 1 calls.

    The noise that is added is the one that the student's image was made of, for which the teacher needs few steps: its
    path of that noise ends near that image. Fresh noise would have to be removed, which no teacher does well in so few
    (docs/log.md).

    Args:
        sampler: the student.
        teacher: the teacher, with the guidance that the student learned.
        steps: k, the number of teacher steps.
        level: r, the time at which the teacher takes over.
        kept: the picture that the samples must agree with, if there is one.
        asked: the teacher's condition, a batch of one, where it differs from the student's: an edit.
    """

    sampler: Sampler
    teacher: Teacher
    steps: int
    level: float
    kept: Kept | None = None
    asked: Condition | None = None

    def __post_init__(self) -> None:
        low, high = self.teacher.t_range
        if not low < self.level <= high:
            raise BootdiffError(f"--refine-from {self.level:g}: expected a time above {low:g}, up to {high:.3g}.")

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one of the student's samples, without the batch."""
        return self.sampler.shape

    @property
    def adapter(self) -> Adapter | None:
        """Return the student's adapter; None if it belongs to no pipeline."""
        return self.sampler.adapter

    def told_weight(self, weight: float | None) -> float | None:
        """Return the guidance weight that the student's condition must hold; None where it holds none."""
        return self.sampler.told_weight(weight)

    @torch.no_grad()
    def __call__(self, eps: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """Return refined samples, (b, *shape)."""
        teacher = settled(self.teacher, eps.device)
        start = self._start(eps, condition)
        theirs = condition if self.asked is None else condition.add(**_spread(self.asked, eps))
        times = torch.tensor([*trailing_times(self.steps, teacher.t_range[0], self.level)], device=eps.device)
        steps = [time.expand(len(eps)) for time in times]
        x = noisy(start, eps, steps[0], teacher.schedule)
        for t, s in pairwise(steps):
            x = self._agreed(ddim_step(x, teacher.x0(x, t, theirs), t, s, teacher.schedule), eps, s)
        return self._agreed(teacher.x0(x, steps[-1], theirs), eps, None)

    def _start(self, eps: Tensor, condition: Condition) -> Tensor:
        if self.kept is not None and self.kept.is_start:
            return self.kept.sample.to(eps).expand(len(eps), *self.shape)
        return self._agreed(self.sampler(eps, condition), eps, None)

    def _agreed(self, x: Tensor, eps: Tensor, t: Tensor | None) -> Tensor:
        """Return x with what is kept replaced by the picture's, noised to time t (None: not noised)."""
        if self.kept is None or self.kept.is_start:
            return x
        sample = self.kept.sample.to(x).expand(len(x), *self.shape)
        known = sample if t is None else noisy(sample, eps, t, self.teacher.schedule)
        return self.kept.operator.agreed(x, known)


def _spread(condition: Condition, eps: Tensor) -> dict[str, Tensor]:
    return {name: value.to(eps.device).expand(len(eps), *value.shape[1:]) for name, value in condition.items()}


def level_of(schedule: Schedule, ratio: float = REFINED) -> float:
    """Return the time t at which sigma / alpha is ``ratio``, to a thousandth."""
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    return t[(schedule.lambda_(t).exp() - ratio).abs().nan_to_num(torch.inf).argmin()].item()


def open_kept(image: Path, mask: Path | None, shape: tuple[int, ...], adapter: Adapter | None) -> Kept:
    """Open a picture and its mask (white is filled), and return both as a network of this shape sees them.

    Raises:
        BootdiffError: if a file is no picture, or if the student's images have neither one channel nor three.
    """
    latent = adapter is not None and adapter.latent
    factor = adapter.factor if adapter is not None and latent else 1
    height, width = shape[1] * factor, shape[2] * factor
    channels = adapter.vae.in_channels if adapter is not None and adapter.vae is not None else shape[0]
    if channels not in (1, 3):
        raise BootdiffError(f"{image}: this student's images have {channels} channels, and a picture has 1 or 3.")
    pixels = _pixels(image, "RGB" if channels == 3 else "L", width, height) * 2 - 1
    if adapter is not None and latent:
        pixels = adapter.latents(pixels)
    if mask is None:
        return Kept(pixels)
    return Kept(pixels, Mask(_pixels(mask, "L", shape[2], shape[1], mask=True)))


def _pixels(path: Path, mode: str, width: int, height: int, mask: bool = False) -> Tensor:
    """Return a picture's values, (1, c, height, width) in [0, 1]."""
    import numpy
    from PIL import Image

    picture = open_image(path, mask=mask).convert(mode).resize((width, height), Image.Resampling.BOX)
    values = torch.from_numpy(numpy.array(picture)).float() / 255
    return values[None, None] if values.ndim == 2 else values.permute(2, 0, 1)[None]


def refined_rows(sampler: Sampler, teacher: Teacher, steps: Sequence[int], level: float | None) -> Iterator[Refined]:
    """Yield the student refined with each of these numbers of teacher steps."""
    start = level_of(teacher.schedule) if level is None else level
    return (Refined(sampler, teacher, count, start) for count in steps)
