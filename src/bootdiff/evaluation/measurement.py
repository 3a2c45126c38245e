"""What a measurement is asked for: how many samples of what, by whom they are judged, and beside which rows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from bootdiff.builtin import DIGITS
from bootdiff.core.errors import BootdiffError, shown
from bootdiff.data.prompts import read_prompt_labels
from bootdiff.evaluation.curve import LADDER
from bootdiff.evaluation.engine import Noises
from bootdiff.evaluation.references import Reference, default_features, find_reference, image_shape, open_features
from bootdiff.evaluation.tally import Judges
from bootdiff.metrics.clip_score import ClipScore
from bootdiff.metrics.features import Features
from bootdiff.samplers.choice import ANY, Choice
from bootdiff.samplers.rows import MOST_STEPS
from bootdiff.storage.runs import Run
from bootdiff.system.notes import said
from bootdiff.system.progress import is_first_process
from bootdiff.teachers import Teacher


def check_ladder(calls: object) -> None:
    """Refuse what is no sequence of numbers of calls; an empty one is.

    Raises:
        BootdiffError: if it is none; the message says what is expected.
    """
    several = isinstance(calls, Sequence) and not isinstance(calls, str)
    if not several or not all(type(n) is int and 1 <= n <= MOST_STEPS for n in cast("Sequence[object]", calls)):
        raise BootdiffError(f"calls should be a list of whole numbers from 1 to {MOST_STEPS}, got {shown(calls)}.")


@dataclass(frozen=True)
class Measurement:
    """What the user asks a measurement for.

    Args:
        features, reference: the feature space and the reference of the Fréchet distance; the builtin teachers have
            their own. The features are a name, or a function from images (b, *shape) to features (b, d).
        clip: the CLIP model for the CLIP score.
        num, seed, repeats: the samples for each noise seed, the seed of the first noise, and the number of noise seeds.
        choice: the prompts, classes and guidance weight.
        labels: the classes that the prompts ask for.
        calls: the numbers of network calls at which the teacher's best sampler is looked for.
        heun: whether the exact end of the teacher's path is a row.
    """

    features: str | Features | None = None
    reference: str | None = None
    clip: str | None = None
    num: int = 2000
    seed: int = 0
    repeats: int = 1
    choice: Choice = ANY
    labels: Sequence[int] | None = None
    calls: Sequence[int] = LADDER
    heun: bool = True

    def __post_init__(self) -> None:
        if self.num < 1 or self.repeats < 1 or self.seed < 0:
            raise BootdiffError(
                f"a measurement expects num and repeats from 1 and seed from 0 on, got num {self.num}, repeats "
                f"{self.repeats}, seed {self.seed}."
            )
        check_ladder(self.calls)
        if not self.calls:
            raise BootdiffError("a measurement expects calls of the teacher, got none.")

    @property
    def noises(self) -> Noises:
        """Return the noises from which every row is sampled."""
        return Noises(self.num, self.seed, self.repeats)

    def judges(self, teacher: Teacher, texts: Sequence[str] | None) -> tuple[Judges, str | None]:
        """Return the judges of this teacher's images, all loaded, and the reference's name.

        Notes for the user are printed.

        Raises:
            BootdiffError: if a judge cannot be loaded, or does not fit.
        """
        features, reference = default_features(teacher, self.features, self.reference)
        space = open_features(features, teacher)
        against = find_reference(reference, space, image_shape(teacher)) if space is not None else None
        if is_first_process():
            for line in _of_reference(against, self.num):
                print(f"bootdiff: note: {line}", file=sys.stderr)
        return Judges(space, against, clip_score(self.clip, texts)), reference

    def labels_of(self, student: str) -> Sequence[int] | None:
        """Return the classes that prompts ask for: those given, or those of the builtin prompts that a run learned.

        It is None if there are neither.
        """
        run = Run.around(student)
        learned = run.settings.get("prompts")
        if self.labels is None and self.choice.prompts is None and learned == DIGITS:
            return read_prompt_labels(DIGITS, None, "label")
        return self.labels


def notes(reference: Reference | None, num: int) -> list[str]:
    """Return the notes that the file of the results holds: on singular covariances, and on what was left out."""
    return [*_of_reference(reference, num), *said()]


def _of_reference(reference: Reference | None, num: int) -> list[str]:
    """Return a line for each covariance that is singular, and so makes its Fréchet distances too large."""
    if reference is None:
        return []
    size, lines = len(reference.statistics.mean), [reference.warning] if reference.warning is not None else []
    if num <= size:
        lines.append(
            f"{num} samples for {size} features: their covariance is singular and the Fréchet distance too large; take "
            f"more than {size}."
        )
    return lines


def clip_score(name: str | None, texts: Sequence[str] | None) -> ClipScore | None:
    """Return the CLIP model, loaded; None if none is named.

    Raises:
        BootdiffError: if there are no prompts that images could fit.
    """
    if name is None:
        return None
    if texts is None:
        raise BootdiffError("--clip (clip=) measures how well images fit their prompts; this student is not given any.")
    return ClipScore(name).load()
