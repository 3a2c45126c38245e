"""What of a picture samples must agree with: a masked part, its greys, its coarse structure, or nothing of it.

Each operator is a linear projection P, and samples are replaced by ``x + P(picture − x)`` (Song et al., arXiv
2303.01469, Section 3 and Algorithm 4: inpainting, colourisation, super-resolution, editing of strokes).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bootdiff.core.errors import BootdiffError


class Operator(Protocol):
    """A part of a picture."""

    def agreed(self, x: Tensor, picture: Tensor) -> Tensor:
        """Return x (b, *shape) with this part replaced by the picture's, (1 or b, *shape)."""
        ...


@dataclass(frozen=True)
class Mask:
    """The part outside a hole: inpainting.

    Args:
        hole: the part to be filled, (1, 1, h, w) in [0, 1], where 1 is filled.
    """

    hole: Tensor

    def agreed(self, x: Tensor, picture: Tensor) -> Tensor:
        """Return x in the hole, and the picture elsewhere."""
        hole = self.hole.to(x)
        return hole * x + (1 - hole) * picture


@dataclass(frozen=True)
class Grey:
    """The grey of every pixel: colourisation.

    Args:
        weights: the weights of red, green and blue in a grey; those of ITU-R BT.601 by default.
    """

    weights: tuple[float, float, float] = (0.299, 0.587, 0.114)

    def agreed(self, x: Tensor, picture: Tensor) -> Tensor:
        """Return x with the picture's greys and its own colours.

        Raises:
            BootdiffError: for images without three channels.
        """
        if x.ndim != 4 or x.shape[1] != 3:
            raise BootdiffError(f"greys are kept of images with 3 channels, got samples of shape {tuple(x.shape[1:])}.")
        w = torch.tensor(self.weights, dtype=x.dtype, device=x.device).view(1, 3, 1, 1)
        return x + w * (w * (picture - x)).sum(1, keepdim=True) / w.square().sum()


@dataclass(frozen=True)
class LowPass:
    """The means of square blocks of pixels: super-resolution.

    Args:
        factor: the side of a block.
    """

    factor: int

    def agreed(self, x: Tensor, picture: Tensor) -> Tensor:
        """Return x with the picture's means of blocks and its own detail.

        Raises:
            BootdiffError: if the blocks do not fill the images.
        """
        if self.factor < 2 or x.ndim != 4 or any(side % self.factor for side in x.shape[-2:]):
            raise BootdiffError(
                f"expected a factor from 2 on that divides the sides of {tuple(x.shape[1:])}, got {self.factor}."
            )
        means = torch.nn.functional.avg_pool2d(picture - x, self.factor)
        return x + means.repeat_interleave(self.factor, dim=-1).repeat_interleave(self.factor, dim=-2)


@dataclass(frozen=True)
class Strokes:
    """Nothing at all: the picture, such as a drawing of a few strokes, is only where sampling starts."""

    def agreed(self, x: Tensor, picture: Tensor) -> Tensor:
        """Return x, (b, c, h, w), unchanged: nothing of the picture has to stay."""
        return x
