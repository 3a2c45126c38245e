"""The Fréchet distance between two sets of features, from streamed means and covariances in float64."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bootdiff.core.errors import BootdiffError, first_line
from bootdiff.metrics.estimate import Estimate
from bootdiff.metrics.rows import as_rows, check_width
from bootdiff.storage.arrays import read_npz


@dataclass(frozen=True)
class Statistics:
    """Mean (d,) and covariance (d, d) of ``count`` feature vectors, in float64; the covariance divides by n − 1.

    ``count`` is 0 where a file does not say it.
    """

    mean: Tensor
    covariance: Tensor
    count: int

    @cached_property
    def factor(self) -> Tensor:
        """F (d, d) with F Fᵀ = covariance, kept: Cholesky's, and for a singular covariance the eigenvectors'."""
        factor, failed = torch.linalg.cholesky_ex(self.covariance)
        if not int(failed):
            return factor
        values, vectors = torch.linalg.eigh(self.covariance)
        return vectors * values.clamp(min=0).sqrt()

    def save(self, path: Path, features: str) -> None:
        """Write ``mu``, ``sigma`` as ``.npz``, the layout of pytorch-fid, with the feature space's name and hash."""
        np.savez(
            path, mu=self.mean.numpy(), sigma=self.covariance.numpy(), count=self.count, features=np.array(features)
        )

    @classmethod
    def load(cls, path: Path) -> tuple[Statistics, str | None]:
        """(statistics, the feature space they were made with, if the file says so).

        Reads the files of pytorch-fid, clean-fid and EDM too, which hold ``mu`` and ``sigma`` only.

        Raises:
            BootdiffError: if the file is no ``.npz`` with ``mu`` and ``sigma``; of a pickle, with how to convert it.
        """
        statistics, features = cls.read(path)
        return statistics.checked(path), features

    @classmethod
    def read(cls, path: Path) -> tuple[Statistics, str | None]:
        """What ``load`` reads, its shapes checked; whether it is a covariance is not: of many features that is slow.

        Raises:
            BootdiffError: as ``load`` does.
        """
        try:
            _refuse_pickle(path)
            held = read_npz(path, ("mu", "sigma", "count"), ("features",))
            mean, covariance = (torch.from_numpy(held[key]).double() for key in ("mu", "sigma"))
            count = int(held["count"].item()) if "count" in held else 0
            features = str(held["features"]) if "features" in held else None
        except (OSError, KeyError, ValueError, OverflowError) as error:
            raise BootdiffError(
                f"{path} cannot be read as reference statistics ({first_line(error)}); expected .npz with mu, sigma."
            ) from error
        size = mean.numel()
        if size == 0 or mean.shape != (size,) or covariance.shape != (size, size):
            raise BootdiffError(
                f"{path} holds mu of shape {tuple(mean.shape)} and sigma of {tuple(covariance.shape)}; expected (d,) "
                "and (d, d)."
            )
        return cls(mean, covariance, count), features

    def checked(self, path: Path) -> Statistics:
        """These, if they are finite and a covariance.

        Raises:
            BootdiffError: otherwise.
        """
        mean, covariance = self.mean, self.covariance
        if not bool(torch.isfinite(mean).all() and torch.isfinite(covariance).all()):
            raise BootdiffError(f"{path} has values that are not finite; make the reference anew.")
        values = torch.linalg.eigvalsh((covariance + covariance.T) / 2)
        if values[0] < -1e-6 * values[-1].abs() or not torch.allclose(covariance, covariance.T, rtol=1e-5, atol=1e-8):
            raise BootdiffError(f"the sigma in {path} is no covariance (not symmetric, or with negative variances).")
        return self


class Accumulator:
    """Gathers features batch by batch."""

    def __init__(self) -> None:
        self.count = 0
        #: mean (d,), and sum (d, d) of the outer products of deviations from it
        self.mean: Tensor | None = None
        self.scatter: Tensor | None = None

    def add(self, features: Tensor) -> None:
        """Count features (b, d).

        Raises:
            BootdiffError: if they are not finite, or of another space than those before.
        """
        rows = as_rows(features.detach().cpu())
        if len(rows):
            mean = rows.mean(0)
            centred = rows - mean
            self._join(len(rows), mean, centred.T @ centred)

    def merge(self, other: Accumulator) -> None:
        """Count what another accumulator gathered, on another process for instance.

        Raises:
            BootdiffError: if its features are of another space.
        """
        if other.mean is not None and other.scatter is not None:
            self._join(other.count, other.mean, other.scatter.clone())

    def statistics(self) -> Statistics:
        """Mean and covariance of everything added.

        Raises:
            BootdiffError: with fewer than two samples.
        """
        if self.mean is None or self.scatter is None or self.count < 2:
            raise BootdiffError(f"statistics need at least two samples, got {self.count}.")
        return Statistics(self.mean, self.scatter / (self.count - 1), self.count)

    def _join(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        """Chan et al. (1979): deviations from means, so no digits cancel. Takes ``scatter`` for its own."""
        if self.mean is None or self.scatter is None:
            self.count, self.mean, self.scatter = count, mean, scatter
            return
        check_width(len(mean), len(self.mean), "those before")
        total, gap = self.count + count, mean - self.mean
        self.scatter.add_(scatter).addr_(gap, gap, alpha=self.count * count / total)
        self.mean = self.mean + gap * (count / total)
        self.count = total


class GroupedAccumulator:
    """Gathers features in groups, which tell how sure the distance is.

    A sample's group is its global number modulo the groups, so nothing depends on batches or on processes. Above 512
    features, whose sums take megabytes a group, there is one group only, and no interval.
    """

    #: features up to which groups are kept
    LARGEST = 512

    def __init__(self, groups: int = 10) -> None:
        self.parts = [Accumulator() for _ in range(groups)]

    @property
    def count(self) -> int:
        """Samples so far."""
        return sum(part.count for part in self.parts)

    def add(self, features: Tensor, first_index: int) -> None:
        """Count features (b, d) of the samples ``first_index``, ``first_index`` + 1, ….

        Raises:
            BootdiffError: if they are not finite, or of another space than those before.
        """
        rows = as_rows(features.detach().cpu())
        groups = len(self.parts) if rows.shape[1] <= self.LARGEST else 1
        for group in range(groups):
            self.parts[group].add(rows[(group - first_index) % groups :: groups])

    def merge(self, other: GroupedAccumulator) -> None:
        """Count what another process gathered.

        Raises:
            BootdiffError: if it has another number of groups, or features of another space.
        """
        if len(other.parts) != len(self.parts):
            raise BootdiffError(
                f"{len(self.parts)} groups and {len(other.parts)} groups cannot be merged; use one number of groups."
            )
        for own, part in zip(self.parts, other.parts, strict=True):
            own.merge(part)

    def statistics(self) -> Statistics:
        """Mean and covariance of everything added.

        Raises:
            BootdiffError: with fewer than two samples.
        """
        return _together(self.parts).statistics()

    def estimate(self, reference: Statistics) -> Estimate:
        """The Fréchet distance with a 95 % interval, of the delete-one-group jackknife (Efron and Stein, 1981).

        The interval tells how much the figure varies from one draw of as many samples to another. It tells neither the
        bias, which is upwards and falls with the number of samples, nor what another reference would change.

        Raises:
            BootdiffError: with fewer than two samples, or a reference of another feature space.
        """
        value = frechet_distance(self.statistics(), reference)
        return Estimate.around(value, self._error(reference), self.count, "Fréchet distance", lowest=0)

    def _error(self, reference: Statistics) -> float | None:
        """The jackknife's standard error; None with one group, or less than two samples in some group."""
        parts = [part for part in self.parts if part.count]
        if len(parts) < 2 or min(part.count for part in parts) < 2:
            return None
        rest = (_together(part for part in parts if part is not left_out) for left_out in parts)
        distances = [frechet_distance(accumulator.statistics(), reference) for accumulator in rest]
        return math.sqrt((len(parts) - 1) * float(np.var(distances)))


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """|mu_a − mu_b|² + tr(S_a + S_b − 2 (S_a S_b)^½): the FID, in whatever feature space (Heusel et al., 2017).

    Args:
        b: the reference; its factor is computed once.

    Raises:
        BootdiffError: if the two have different numbers of features.
    """
    check_width(len(a.mean), len(b.mean))
    # With S_b = F Fᵀ, S_a S_b has the eigenvalues of Fᵀ S_a F, which is symmetric: no complex roots.
    cross = torch.linalg.eigvalsh(b.factor.T @ a.covariance @ b.factor).clamp(min=0).sqrt().sum()
    mean = (a.mean - b.mean).square().sum()
    return float(mean + a.covariance.trace() + b.covariance.trace() - 2 * cross)


def _together(parts: Iterable[Accumulator]) -> Accumulator:
    whole = Accumulator()
    for part in parts:
        whole.merge(part)
    return whole


def _refuse_pickle(path: Path) -> None:
    """Newer reference files of EDM are pickles."""
    with path.open("rb") as file:
        pickled = file.read(1) == b"\x80" or path.suffix in (".pkl", ".pickle")
    if pickled:
        raise BootdiffError(
            f"{path} is a pickle, which may run code when it is opened; if you trust it, convert it once:",
            f"python -c \"import pickle, numpy; s = pickle.load(open('{path}', 'rb')); s = s.get('fid', s); "
            f"numpy.savez('{path.with_suffix('.npz')}', mu=s['mu'], sigma=s['sigma'])\"",
        )
