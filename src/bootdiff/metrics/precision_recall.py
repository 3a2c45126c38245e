"""Improved precision and recall: the share of samples that look real, and the share of real images that are covered."""

from __future__ import annotations

import torch
from torch import Tensor

from bootdiff.core.errors import BootdiffError
from bootdiff.metrics.estimate import Estimate
from bootdiff.metrics.rows import as_rows, check_width

#: the largest number of distances that are computed at a time: 64 MiB in float64
BLOCK = 2**23

#: squared distances that differ by less than this share of the squared norms are equal. They are computed as
#: |x|² + |y|² − 2 x · y in float64, whose rounding is below it for thousands of features; features come in float32.
SLACK = 1e-12


def precision_recall(samples: Tensor, reference: Tensor, k: int = 3) -> tuple[Estimate, Estimate]:
    """Return (precision, recall), each in [0, 1].

    A sample counts for precision if it lies within the ball of some reference sample, which reaches that sample's k-th
    nearest neighbour in the reference. Recall is the same with the sets exchanged. Both depend on the sizes of the
    sets, so compare only figures of equal sizes. The Wilson intervals take the balls as given.

    Args:
        samples, reference: features (n, d) and (m, d), on one device; the memory needed beside their float64 copies is
            bounded.
        k: the number of the neighbour that a ball reaches.

    Raises:
        BootdiffError: if the numbers of features differ, or a set has no k neighbours or values that are not finite.

    Source: Kynkäänniemi et al. (2019), "Improved precision and recall metric for assessing generative models".
    """
    x, y = as_rows(samples), as_rows(reference, "reference features")
    check_width(x.shape[1], y.shape[1])
    if k < 1 or min(len(x), len(y)) <= k:
        raise BootdiffError(
            f"precision and recall with k = {k} need more than {max(k, 1)} samples in each set, got {len(x)} and "
            f"{len(y)}."
        )
    # Far from the origin the squared norms would hide the distances.
    centre = y.mean(0)
    x, y = x - centre, y - centre
    words = f"share within the {k}-nearest-neighbour balls of"
    precision = Estimate.of_share(_inside(x, y, k), len(x), f"{words} {len(y)} reference samples")
    return precision, Estimate.of_share(_inside(y, x, k), len(y), f"{words} {len(x)} samples")


def _inside(points: Tensor, centres: Tensor, k: int) -> int:
    """Return how many points lie within the ball of some centre."""
    norms = centres.square().sum(1)
    reach = _squared_radii(centres, k) - (1 - SLACK) * norms
    count = 0
    for block in points.split(max(1, BLOCK // len(centres))):
        # |x − y|² ≤ r² for some y, with the terms of y on one side
        nearest = torch.addmm(reach, block, centres.T, alpha=2).amax(1)
        count += int((nearest >= (1 - SLACK) * block.square().sum(1)).sum())
    return count


def _squared_radii(centres: Tensor, k: int) -> Tensor:
    """Return the squared distance of each row to its k-th nearest other row, (n,)."""
    norms = centres.square().sum(1)
    radii = []
    for block in centres.split(max(1, BLOCK // len(centres))):
        squares = torch.addmm(norms, block, centres.T, alpha=-2)
        # One more than k, because every row is its own nearest.
        radii.append(squares.topk(k + 1, largest=False).values[:, -1] + block.square().sum(1))
    return torch.cat(radii).clamp(min=0)
