"""The Fréchet distance between two sets of features, from streamed means and covariances in float64."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from bootdiff.errors import BootdiffError


@dataclass(frozen=True)
class Statistics:
    """Mean (d,) and covariance (d, d) of ``count`` feature vectors, in float64; the covariance divides by n − 1."""

    mean: Tensor
    covariance: Tensor
    count: int

    def save(self, path: Path, features: str) -> None:
        """Write ``mu``, ``sigma`` as ``.npz``, the layout of pytorch-fid, with the feature space's name and hash."""
        np.savez(
            path, mu=self.mean.numpy(), sigma=self.covariance.numpy(), count=self.count, features=np.array(features)
        )

    @classmethod
    def load(cls, path: Path) -> tuple[Statistics, str | None]:
        """(statistics, the feature space they were made with, if the file says so).

        Raises:
            BootdiffError: if the file is no ``.npz`` with ``mu`` and ``sigma``.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                mean, covariance = (torch.from_numpy(data[key]).double() for key in ("mu", "sigma"))
                count = int(data["count"]) if "count" in data else 0
                features = str(data["features"]) if "features" in data else None
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, BadZipFile) as error:
            raise BootdiffError(
                f"{path} cannot be read as reference statistics ({error}); expected .npz with mu, sigma."
            ) from error
        size = mean.numel()
        if mean.shape != (size,) or covariance.shape != (size, size):
            raise BootdiffError(
                f"{path} holds mu of shape {tuple(mean.shape)} and sigma of {tuple(covariance.shape)}; expected (d,) "
                "and (d, d)."
            )
        if not bool(torch.isfinite(mean).all() and torch.isfinite(covariance).all()):
            raise BootdiffError(f"{path} has values that are not finite; make the reference anew.")
        return cls(mean, covariance, count), features


class Accumulator:
    """Gathers features batch by batch."""

    def __init__(self) -> None:
        self.count = 0
        self.total: Tensor | None = None
        self.products: Tensor | None = None

    def add(self, features: Tensor) -> None:
        """Count features (b, d)."""
        features = features.detach().cpu().double()
        self.count += len(features)
        total, products = features.sum(0), features.T @ features
        self.total = total if self.total is None else self.total + total
        self.products = products if self.products is None else self.products + products

    def statistics(self) -> Statistics:
        """Mean and covariance of everything added.

        Raises:
            BootdiffError: with fewer than two samples, or features that are not finite.
        """
        if self.total is None or self.products is None or self.count < 2:
            raise BootdiffError(f"statistics need at least two samples, got {self.count}.")
        mean = self.total / self.count
        covariance = (self.products - self.count * torch.outer(mean, mean)) / (self.count - 1)
        if not bool(torch.isfinite(covariance).all()):
            raise BootdiffError("the features of some samples are not finite; look at the samples.")
        return Statistics(mean, covariance, self.count)


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """|mu_a − mu_b|² + tr(S_a + S_b − 2 (S_a S_b)^½): the FID, in whatever feature space (Heusel et al., 2017).

    Raises:
        BootdiffError: if the two have different numbers of features.
    """
    if a.mean.shape != b.mean.shape:
        raise BootdiffError(
            f"the samples have {len(a.mean)} features and the reference {len(b.mean)}; they were made with different "
            "feature spaces, so make the reference anew."
        )
    # tr (S_a S_b)^½ = tr (S_a^½ S_b S_a^½)^½, of a symmetric matrix: no complex roots.
    values, vectors = torch.linalg.eigh(a.covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ b.covariance @ root).clamp(min=0).sqrt().sum()
    mean = (a.mean - b.mean).square().sum()
    return float(mean + a.covariance.trace() + b.covariance.trace() - 2 * cross)
