"""The figures of one candidate's samples, gathered batch by batch on any number of processes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from bootdiff.core.device import best_device
from bootdiff.core.errors import BootdiffError
from bootdiff.evaluation.references import Reference
from bootdiff.metrics.clip_score import ClipScore
from bootdiff.metrics.diversity import Diversity
from bootdiff.metrics.estimate import Estimate
from bootdiff.metrics.faithfulness import share
from bootdiff.metrics.features import Features
from bootdiff.metrics.frechet import GroupedAccumulator
from bootdiff.metrics.inception_score import InceptionScore
from bootdiff.metrics.kernel import kernel_distance
from bootdiff.metrics.precision_recall import precision_recall
from bootdiff.metrics.registry import further_metrics

#: the number of first samples whose feature vectors are kept, for figures that need them one by one
KEPT = 10_000
#: the number of samples above which nearest neighbours are looked for
FEWEST = 10


@dataclass(frozen=True)
class Judges:
    """The judges of images: what their figures are measured with.

    Args:
        features: the feature space.
        reference: the reference in that space.
        clip: the CLIP model that says how well images fit their prompts.
    """

    features: Features | None = None
    reference: Reference | None = None
    clip: ClipScore | None = None

    def __bool__(self) -> bool:
        return self.features is not None or self.clip is not None


class Asked(Protocol):
    """What is known of a batch: the number of its first sample, and what each sample was asked for."""

    @property
    def start(self) -> int:
        """Return the number of the batch's first sample."""
        ...

    @property
    def labels(self) -> Tensor | None:
        """Return the classes that were asked for, (b,), or None."""
        ...

    @property
    def texts(self) -> Sequence[str] | None:
        """Return the prompts that were asked for, b of them, or None."""
        ...

    @property
    def groups(self) -> Tensor | None:
        """Return numbers, (b,), that are equal for samples of one condition, or None."""
        ...


@dataclass
class Tally:
    """The figures of one noise seed in one feature space, while they are gathered.

    Nothing depends on the size of the batches, or on which process made them, because everything is kept by a sample's
    number.
    """

    frechet: GroupedAccumulator = field(default_factory=GroupedAccumulator)
    diversity: Diversity = field(default_factory=Diversity)
    inception: InceptionScore = field(default_factory=InceptionScore)
    kept: dict[int, Tensor] = field(default_factory=dict)
    classified: bool = False
    faithful: int = 0
    asked: int = 0
    scores: dict[int, Tensor] = field(default_factory=dict)

    def add(self, judges: Judges, images: Tensor, asked: Asked) -> None:
        """Add images (b, c, h, w) in [−1, 1].

        Raises:
            BootdiffError: if the feature space does not know a class, or if features are not finite.
        """
        if judges.features is not None:
            self._look(judges.features, images, asked)
        if judges.clip is not None and asked.texts is not None:
            self.scores[asked.start] = judges.clip(images, asked.texts)

    def _look(self, features: Features, images: Tensor, asked: Asked) -> None:
        first, labels = asked.start, asked.labels
        values, logits = features.read(images)
        values = values.detach().cpu()
        self.frechet.add(values, first)
        self.diversity.add(values, None if asked.groups is None else asked.groups.cpu())
        if first < KEPT:
            self.kept[first] = values[: KEPT - first].float()
        if logits is None:
            return
        self.classified = True
        self.inception.add(logits.detach().cpu(), first)
        if labels is not None and features.knows_labels:
            self._count(features, logits, labels)

    def _count(self, features: Features, logits: Tensor, labels: Tensor) -> None:
        if int(labels.max()) >= logits.shape[1]:
            raise BootdiffError(
                f"class {int(labels.max())} was asked for, but {features.name} knows the classes 0 to "
                f"{logits.shape[1] - 1}; measure with a classifier that knows it."
            )
        self.faithful += int((logits.argmax(1).cpu() == labels.cpu()).sum())
        self.asked += len(labels)

    def merge(self, other: Tally) -> None:
        """Add what another process gathered."""
        self.frechet.merge(other.frechet)
        self.diversity.merge(other.diversity)
        self.inception.merge(other.inception)
        self.kept.update(other.kept)
        self.classified |= other.classified
        self.faithful, self.asked = self.faithful + other.faithful, self.asked + other.asked
        self.scores.update(other.scores)

    def figures(self, judges: Judges) -> dict[str, Estimate]:
        """Return all figures that can be given, by name.

        Distances need a reference, and some also need single samples of it.
        """
        known = self._figures(judges.reference) if judges.features is not None else {}
        if judges.clip is not None and self.scores:
            known["clip_score"] = judges.clip.estimate(torch.cat([self.scores[first] for first in sorted(self.scores)]))
        return known

    def _figures(self, reference: Reference | None) -> dict[str, Estimate]:
        known: dict[str, Estimate] = {}
        if reference is not None:
            known["frechet_distance"] = self.frechet.estimate(reference.statistics)
        if (
            reference is not None
            and reference.samples is not None
            and min(self.frechet.count, len(reference.samples)) > FEWEST
        ):
            samples = torch.cat([self.kept[first] for first in sorted(self.kept)]).to(best_device())
            against = reference.samples.to(samples.device)
            known["kid"] = kernel_distance(samples, against)
            known["precision"], known["recall"] = precision_recall(samples, against)
            known.update({name: metric.of(samples, against) for name, metric in further_metrics().items()})
        with suppress(BootdiffError):  # of a condition with two samples at least
            known["diversity"] = self.diversity.estimate()
        if self.classified:
            known["inception_score"] = self.inception.estimate()
        if self.asked:
            known["faithfulness"] = share(self.faithful, self.asked)
        return known
