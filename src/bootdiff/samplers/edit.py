"""Zero-shot editing with a consistency student: part of a picture is kept at every call.

Song et al., arXiv 2303.01469, Algorithm 4. Source: docs/method.md, "More than one call".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.samplers.consistency import MultistepConsistency
from bootdiff.samplers.operators import Mask, Operator, Strokes
from bootdiff.solvers import noisy
from bootdiff.students.consistency import ConsistencyStudent


class Edited(MultistepConsistency):
    """A consistency student whose samples agree with a picture in what an operator keeps of it.

    The first call sees the picture's kept part behind noise; after every call that part is put back.

    Args:
        student: the student.
        times: falling times. Little of the picture is left where the first is t_max; ``Strokes`` needs a lower one.
        picture: the picture as the network sees it, (1, *shape): pixels in [−1, 1], or latents.
        operator: the part that is kept.

    Raises:
        BootdiffError: for a picture of another shape, or an operator that means nothing to latents.
    """

    def __init__(
        self, student: ConsistencyStudent, times: Sequence[float], picture: Tensor, operator: Operator
    ) -> None:
        super().__init__(student, times)
        if tuple(picture.shape) != (1, *student.shape):
            raise BootdiffError(f"expected a picture of shape {(1, *student.shape)}, got {tuple(picture.shape)}.")
        if student.adapter is not None and student.adapter.latent and not isinstance(operator, Mask | Strokes):
            raise BootdiffError(
                f"{type(operator).__name__} keeps part of an image's pixels, and this student makes latents; a mask or "
                "strokes can be kept."
            )
        self.picture, self.operator = picture, operator

    def _start(self, student: ConsistencyStudent, eps: Tensor) -> Tensor:
        picture = self.picture.to(eps).expand_as(eps)
        known = picture if isinstance(self.operator, Strokes) else self.operator.agreed(torch.zeros_like(eps), picture)
        return noisy(known, eps, torch.full((len(eps),), self.times[0], device=eps.device), student.schedule)

    def _image(self, student: ConsistencyStudent, x_t: Tensor, time: float, condition: Condition) -> Tensor:
        x = super()._image(student, x_t, time, condition)
        return self.operator.agreed(x, self.picture.to(x))
