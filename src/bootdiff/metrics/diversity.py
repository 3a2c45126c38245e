"""Diversity: how far apart two samples of the same condition are.

It is near zero where a student answers every noise alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bootdiff.core.errors import BootdiffError
from bootdiff.metrics.estimate import Estimate
from bootdiff.metrics.rows import as_rows


@dataclass
class _Cluster:
    """The samples of one condition: their number, their mean (d,), and the sum of squared distances to it."""

    count: int
    mean: Tensor
    scatter: float

    def join(self, other: _Cluster) -> _Cluster:
        """Return the cluster of both clusters' samples.

        The formula of Chan et al. (1979) loses no digits to cancellation, wherever the mean lies.
        """
        count, gap = self.count + other.count, other.mean - self.mean
        between = float(gap.square().sum()) * self.count * other.count / count
        return _Cluster(count, self.mean + gap * (other.count / count), self.scatter + other.scatter + between)


class Diversity:
    """Gathers features, or flattened images, batch by batch, and keeps one mean for each condition.

    Two independent samples x, y of a condition have E |x − y|² = 2 tr Cov. The covariance is pooled over the
    conditions, each weighted by the number of its samples minus one, so the squared figure is unbiased.
    """

    def __init__(self) -> None:
        self.clusters: dict[int, _Cluster] = {}

    def add(self, features: Tensor, labels: Tensor | None = None) -> None:
        """Add a batch of features (b, d) with their conditions' labels (b,).

        Without labels all samples belong to one condition.

        Raises:
            BootdiffError: if the features are not finite, or if there is not one label for each sample.
        """
        rows = as_rows(features).cpu()
        labels = torch.zeros(len(rows), dtype=torch.long) if labels is None else labels.cpu()
        if labels.shape != (len(rows),):
            raise BootdiffError(f"expected {len(rows)} labels, one a sample, got shape {tuple(labels.shape)}.")
        for label in labels.unique().tolist():
            own = rows[labels == label]
            mean = own.mean(0)
            self._join(int(label), _Cluster(len(own), mean, float((own - mean).square().sum())))

    def merge(self, other: Diversity) -> None:
        """Add what another process gathered."""
        for label, cluster in other.clusters.items():
            self._join(label, cluster)

    def estimate(self) -> Estimate:
        """Return the root mean square distance between two samples of the same condition, √(2 tr Cov).

        The estimate has no interval of its own; figures of several noise seeds give one (``Estimate.mean_of``).

        Raises:
            BootdiffError: if no condition has two samples.
        """
        clusters = self.clusters.values()
        num, freedom = sum(c.count for c in clusters), sum(c.count - 1 for c in clusters)
        if freedom < 1:
            raise BootdiffError(
                f"diversity needs two samples of the same condition, got {num} of {len(clusters)}; sample more."
            )
        value = math.sqrt(2 * sum(c.scatter for c in clusters) / freedom)
        words = f" within {len(clusters)} conditions" if len(clusters) > 1 else ""
        return Estimate(value, num, f"root mean square distance between two samples{words}")

    def _join(self, label: int, cluster: _Cluster) -> None:
        own = self.clusters.get(label)
        self.clusters[label] = cluster if own is None else own.join(cluster)
