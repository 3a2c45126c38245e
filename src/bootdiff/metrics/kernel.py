"""The kernel distance between two sets of features, which is unbiased at any number of samples."""

from __future__ import annotations

import math
from statistics import fmean, stdev

import torch
from torch import Tensor

from bootdiff.core.errors import BootdiffError
from bootdiff.metrics.estimate import Estimate
from bootdiff.metrics.rows import as_rows, check_width

#: the largest number of kernel entries that are computed at a time: 64 MiB in float64
BLOCK = 2**23


def kernel_distance(
    samples: Tensor, reference: Tensor, subsets: int = 100, size: int = 1000, seed: int = 0
) -> Estimate:
    """Return the unbiased MMD² with the kernel (x · y / d + 1)³, a mean over random subsets; it can be negative.

    A set of no more than ``size`` samples is used whole in every subset; if both are, there is one subset.

    The subsets overlap, so their spread alone says little. The squared standard error is that of the delete-d
    jackknife, s² · f / (1 − f), plus s² / subsets, because only some subsets are drawn. Here s is the standard
    deviation over subsets, and f is the share of a set that a subset uses: the larger share of the two sets, to be on
    the safe side. Where a set is used whole, the standard error is unknown.

    Args:
        samples, reference: features (n, d) and (m, d), on one device, in the order of their samples.
        subsets: the number of subsets.
        size: the number of samples in a subset.
        seed: the seed with which subsets are drawn.

    Raises:
        BootdiffError: if the numbers of features differ, or a set has fewer than two samples or values that are not
            finite.

    Source: Bińkowski et al. (2018), "Demystifying MMD GANs"; Shao and Wu (1989), "A general theory for jackknife
    variance estimation".
    """
    sets = as_rows(samples), as_rows(reference, "reference features")
    check_width(sets[0].shape[1], sets[1].shape[1])
    if min(map(len, sets)) < 2 or size < 2 or subsets < 1:
        raise BootdiffError(
            f"a kernel distance needs subsets of at least two samples, got {subsets} of {size} out of {len(samples)} "
            f"samples and {len(reference)} of the reference."
        )
    largest = max(map(len, sets))
    count = 1 if largest <= size else subsets
    values = _values(*sets, size, count, seed)
    share = max(min(size, len(rows)) / len(rows) for rows in sets)
    error = stdev(values) * math.sqrt(share / (1 - share) + 1 / count) if share < 1 and count > 1 else None
    used = min(size, len(samples) if count > 1 else largest)
    words = f"mean of {count} subsets of {used}" if count > 1 else f"one subset of {used}"
    return Estimate.around(fmean(values), error, len(samples), f"unbiased MMD², cubic kernel, {words}")


def _values(x: Tensor, y: Tensor, size: int, count: int, seed: int) -> list[float]:
    """Return the MMD² of each of ``count`` random subsets."""
    generator = torch.Generator().manual_seed(seed)
    draws = [(_draw(len(x), size, generator), _draw(len(y), size, generator)) for _ in range(count)]
    if max(len(x), len(y)) ** 2 > count * size**2:
        return [float(_mmd(x[i.to(x.device)], y[j.to(y.device)])) for i, j in draws]
    # The whole kernel has fewer entries than the subsets' together: each is a sum over it.
    chosen = x.new_zeros(count, len(x)), y.new_zeros(count, len(y))
    for number, draw in enumerate(draws):
        for mask, rows in zip(chosen, draw, strict=True):
            mask[number, rows.to(mask.device)] = 1
    return _mmd(x, y, *chosen).tolist()


def _draw(num: int, size: int, generator: torch.Generator) -> Tensor:
    """Return ``size`` different row numbers below ``num``, or all of them where there are no more."""
    return torch.arange(num) if num <= size else torch.randperm(num, generator=generator)[:size]


def _mmd(x: Tensor, y: Tensor, in_x: Tensor | None = None, in_y: Tensor | None = None) -> Tensor:
    """Return the unbiased MMD² of each subset, (subsets,): Bińkowski et al. (2018), Eq. 4.

    ``in_x`` (subsets, n) and ``in_y`` (subsets, m) are 1 where a row is in a subset and 0 elsewhere; None: one subset
    of all.
    """
    in_x = x.new_ones(1, len(x)) if in_x is None else in_x
    in_y = y.new_ones(1, len(y)) if in_y is None else in_y
    between = _sums(x, y, in_x, in_y) / (in_x.sum(1) * in_y.sum(1))
    return _own(x, in_x) + _own(y, in_y) - 2 * between


def _own(x: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean kernel of two different rows of each subset, (subsets,)."""
    count = chosen.sum(1)
    itself = (x.square().mean(1) + 1) ** 3
    return (_sums(x, x, chosen, chosen) - chosen @ itself) / (count * (count - 1))


def _sums(x: Tensor, y: Tensor, in_x: Tensor, in_y: Tensor) -> Tensor:
    """Return the kernel summed over the rows of each subset, (subsets,); it is computed in blocks."""
    size = max(1, BLOCK // len(y))
    total = x.new_zeros(len(in_x))
    for rows, chosen in zip(x.split(size), in_x.split(size, dim=1), strict=True):
        kernel = (rows @ y.T / x.shape[1] + 1) ** 3
        total += (chosen @ kernel * in_y).sum(1)
    return total
