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
    """The mean (d,) and covariance (d, d) of ``count`` feature vectors, in float64.

    The covariance divides by n − 1.

    ``count`` is 0 where a file does not say it.
    """

    mean: Tensor
    covariance: Tensor
    count: int

    @cached_property
    def factor(self) -> Tensor:
        """Return F (d, d) with F Fᵀ = covariance; it is computed once.

        It is Cholesky's factor, or for a singular covariance one made from eigenvectors.
        """
        factor, failed = torch.linalg.cholesky_ex(self.covariance)
        if not int(failed):
            return factor
        values, vectors = torch.linalg.eigh(self.covariance)
        return vectors * values.clamp(min=0).sqrt()

    def save(self, path: Path, features: str) -> None:
        """Write mean and covariance as ``.npz`` in pytorch-fid's layout, with the feature space's name.

        The file holds ``mu``, ``sigma``, ``count`` and ``features``.
        """
        np.savez(
            path, mu=self.mean.numpy(), sigma=self.covariance.numpy(), count=self.count, features=np.array(features)
        )

    @classmethod
    def load(cls, path: Path) -> tuple[Statistics, str | None]:
        """Read and check statistics; return them and the feature space's name, None if the file does not say it.

        It reads the files of pytorch-fid, clean-fid and EDM, too, which hold only ``mu`` and ``sigma``.

        Raises:
            BootdiffError: if the file is no ``.npz`` with ``mu`` and ``sigma``; for a pickle the message says how to
                convert it.
        """
        statistics, features = cls.read(path)
        return statistics.checked(path), features

    @classmethod
    def read(cls, path: Path) -> tuple[Statistics, str | None]:
        """Read statistics and check their shapes only; return them and the feature space's name, or None.

        It does not check that ``sigma`` is a covariance, which is slow for many features (``checked`` does).

        Raises:
            BootdiffError: if the file cannot be read, or ``mu`` and ``sigma`` do not have the shapes (d,) and (d, d).
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
        """Return these statistics after checking that they are finite and that ``covariance`` is a covariance.

        Raises:
            BootdiffError: if they are not.
        """
        mean, covariance = self.mean, self.covariance
        if not bool(torch.isfinite(mean).all() and torch.isfinite(covariance).all()):
            raise BootdiffError(f"{path} has values that are not finite; make the reference anew.")
        values = torch.linalg.eigvalsh((covariance + covariance.T) / 2)
        if values[0] < -1e-6 * values[-1].abs() or not torch.allclose(covariance, covariance.T, rtol=1e-5, atol=1e-8):
            raise BootdiffError(f"the sigma in {path} is no covariance (not symmetric, or with negative variances).")
        return self


class Accumulator:
    """Gathers features batch by batch, as their number, mean and scatter."""

    def __init__(self) -> None:
        self.count = 0
        #: the mean (d,), and below it the sum (d, d) of the outer products of deviations from that mean
        self.mean: Tensor | None = None
        self.scatter: Tensor | None = None

    def add(self, features: Tensor) -> None:
        """Add a batch of features (b, d).

        Raises:
            BootdiffError: if they are not finite, or if they have another width than those before.
        """
        rows = as_rows(features.detach().cpu())
        if len(rows):
            mean = rows.mean(0)
            centred = rows - mean
            self._join(len(rows), mean, centred.T @ centred)

    def merge(self, other: Accumulator) -> None:
        """Add what another accumulator gathered, on another process for instance.

        Raises:
            BootdiffError: if its features have another width.
        """
        if other.mean is not None and other.scatter is not None:
            self._join(other.count, other.mean, other.scatter.clone())

    def statistics(self) -> Statistics:
        """Return the mean and covariance of everything added.

        Raises:
            BootdiffError: if fewer than two samples were added.
        """
        if self.mean is None or self.scatter is None or self.count < 2:
            raise BootdiffError(f"statistics need at least two samples, got {self.count}.")
        return Statistics(self.mean, self.scatter / (self.count - 1), self.count)

    def _join(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        """Add ``count`` samples with this mean (d,) and scatter (d, d); ``scatter`` may be kept and changed.

        The formula is that of Chan et al. (1979): it uses deviations from means, so no digits cancel.
        """
        if self.mean is None or self.scatter is None:
            self.count, self.mean, self.scatter = count, mean, scatter
            return
        check_width(len(mean), len(self.mean), "those before")
        total, gap = self.count + count, mean - self.mean
        self.scatter.add_(scatter).addr_(gap, gap, alpha=self.count * count / total)
        self.mean = self.mean + gap * (count / total)
        self.count = total


class GroupedAccumulator:
    """Gathers features in groups, from which the distance's interval is found.

    A sample's group is its global number modulo the number of groups, so nothing depends on batches or processes. Above
    512 features, whose sums take megabytes a group, there is only one group, and no interval.
    """

    #: the largest number of features for which groups are kept
    LARGEST = 512

    def __init__(self, groups: int = 10) -> None:
        self.parts = [Accumulator() for _ in range(groups)]

    @property
    def count(self) -> int:
        """Return the number of samples added so far."""
        return sum(part.count for part in self.parts)

    def add(self, features: Tensor, first_index: int) -> None:
        """Add the features (b, d) of the samples numbered ``first_index``, ``first_index`` + 1, ….

        Raises:
            BootdiffError: if they are not finite, or if they have another width than those before.
        """
        rows = as_rows(features.detach().cpu())
        groups = len(self.parts) if rows.shape[1] <= self.LARGEST else 1
        for group in range(groups):
            self.parts[group].add(rows[(group - first_index) % groups :: groups])

    def merge(self, other: GroupedAccumulator) -> None:
        """Add what another process gathered.

        Raises:
            BootdiffError: if it has another number of groups, or features of another width.
        """
        if len(other.parts) != len(self.parts):
            raise BootdiffError(
                f"{len(self.parts)} groups and {len(other.parts)} groups cannot be merged; use one number of groups."
            )
        for own, part in zip(self.parts, other.parts, strict=True):
            own.merge(part)

    def statistics(self) -> Statistics:
        """Return the mean and covariance of everything added.

        Raises:
            BootdiffError: if fewer than two samples were added.
        """
        return _together(self.parts).statistics()

    def estimate(self, reference: Statistics) -> Estimate:
        """Return the Fréchet distance with a 95 % interval.

        The interval is that of the delete-one-group jackknife (Efron and Stein, 1981).

        It says how much the figure varies from one draw of as many samples to another. It says neither how large the
        bias is, which is upwards and falls with the number of samples, nor what another reference would change.

        Raises:
            BootdiffError: if fewer than two samples were added, or if the reference belongs to another feature space.
        """
        value = frechet_distance(self.statistics(), reference)
        return Estimate.around(value, self._error(reference), self.count, "Fréchet distance", lowest=0)

    def _error(self, reference: Statistics) -> float | None:
        """Return the jackknife's standard error.

        It is None with one group, or with fewer than two samples in some group.
        """
        parts = [part for part in self.parts if part.count]
        if len(parts) < 2 or min(part.count for part in parts) < 2:
            return None
        rest = (_together(part for part in parts if part is not left_out) for left_out in parts)
        distances = [frechet_distance(accumulator.statistics(), reference) for accumulator in rest]
        return math.sqrt((len(parts) - 1) * float(np.var(distances)))


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """Return the Fréchet distance, |mu_a − mu_b|² + tr(S_a + S_b − 2 (S_a S_b)^½), in any feature space.

    In Inception's space it is the FID (Heusel et al., 2017).

    Args:
        b: the reference, whose factor is computed once.

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
    """Refuse a pickle, which newer reference files of EDM are, and say how to convert it."""
    with path.open("rb") as file:
        pickled = file.read(1) == b"\x80" or path.suffix in (".pkl", ".pickle")
    if pickled:
        raise BootdiffError(
            f"{path} is a pickle, which may run code when it is opened; if you trust it, convert it once:",
            f"python -c \"import pickle, numpy; s = pickle.load(open('{path}', 'rb')); s = s.get('fid', s); "
            f"numpy.savez('{path.with_suffix('.npz')}', mu=s['mu'], sigma=s['sigma'])\"",
        )
