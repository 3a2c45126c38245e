"""The Inception Score, computed batch by batch from a classifier's logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bootdiff.core.errors import BootdiffError
from bootdiff.metrics.estimate import Estimate
from bootdiff.metrics.rows import as_rows


class InceptionScore:
    """The Inception Score, exp E KL(p(y|x) ‖ p(y)), between 1 and the number of classes.

    It is the mean over splits of the samples.

    A sample's split is its global number modulo ``splits``, so the score depends neither on batches nor on processes.

    Args:
        splits: the number of splits; 10 is usual. With few samples a split the score is too low, so compare only
            figures of equal sizes.

    Source: Salimans et al. (2016), "Improved techniques for training GANs".
    """

    def __init__(self, splits: int = 10) -> None:
        self.splits = splits
        self.counts = torch.zeros(splits, dtype=torch.float64)
        self.negentropy = torch.zeros(splits, dtype=torch.float64)
        self.probabilities: Tensor | None = None

    def add(self, logits: Tensor, first_index: int) -> None:
        """Add the logits (b, classes) of the samples numbered ``first_index``, ``first_index`` + 1, ….

        Raises:
            BootdiffError: if they are not finite.
        """
        logs = as_rows(logits, "logits").cpu().log_softmax(1)
        probabilities = logs.exp()
        split = split_of(torch.arange(first_index, first_index + len(logs)), self.splits)
        self._open(logs.shape[1]).index_add_(0, split, probabilities)
        self.negentropy.index_add_(0, split, (probabilities * logs).sum(1))
        self.counts.index_add_(0, split, torch.ones_like(logs[:, 0]))

    def merge(self, other: InceptionScore) -> None:
        """Add what another process gathered.

        Raises:
            BootdiffError: if it has another number of splits.
        """
        if other.splits != self.splits:
            raise BootdiffError(f"scores of {self.splits} and {other.splits} splits cannot be merged; use one number.")
        if other.probabilities is not None:
            self._open(other.probabilities.shape[1]).add_(other.probabilities)
            self.negentropy += other.negentropy
            self.counts += other.counts

    def estimate(self) -> Estimate:
        """Return the mean over splits, ± 1.96 standard errors of that mean; one split has no interval.

        Raises:
            BootdiffError: if nothing was added.
        """
        num, filled = int(self.counts.sum()), self.counts > 0
        if self.probabilities is None or not num:
            raise BootdiffError("an Inception Score needs at least one sample, got none.")
        counts = self.counts[filled]
        marginal = self.probabilities[filled] / counts[:, None]
        # E KL(p(y|x) ‖ p(y)) = E Σ p log p − Σ p(y) log p(y)
        scores = (self.negentropy[filled] / counts - torch.xlogy(marginal, marginal).sum(1)).exp()
        error = float(scores.std()) / math.sqrt(len(scores)) if len(scores) > 1 else None
        words = f"Inception Score, mean of {len(scores)} splits" if len(scores) > 1 else "Inception Score"
        return Estimate.around(float(scores.mean()), error, num, words, lowest=1)

    def _open(self, classes: int) -> Tensor:
        """Return the sums of probabilities (splits, classes), made at the first call."""
        if self.probabilities is None:
            self.probabilities = torch.zeros(self.splits, classes, dtype=torch.float64)
        if self.probabilities.shape[1] != classes:
            raise BootdiffError(
                f"logits of {self.probabilities.shape[1]} classes came before, now of {classes}; use one classifier."
            )
        return self.probabilities


def split_of(index: Tensor, splits: int) -> Tensor:
    """Return each sample's split (n,), in 0 … splits − 1, from the sample's number.

    The splits are scattered: where classes come in turn, splits that come in turn would hold one class each.

    Source: Knuth's multiplicative hash, of 32 bits.
    """
    return (index * 2654435761 % 2**32) * splits // 2**32
