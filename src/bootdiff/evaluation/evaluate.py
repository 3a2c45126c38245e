"""One evaluation for every system: same noises, same features, same reference."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bootdiff.builtin import builtin_folder
from bootdiff.errors import BootdiffError
from bootdiff.evaluation.rows import DDIM_STEPS, HEUN_STEPS, Candidate, reference_path, teacher_candidates
from bootdiff.metrics.features import Features, load_features
from bootdiff.metrics.frechet import Accumulator, Statistics, frechet_distance
from bootdiff.pipelines.samplers import Sampler, noise_batches
from bootdiff.progress import progress
from bootdiff.teachers import Teacher

BATCH = 512


@dataclass
class Measured:
    """What one candidate has gathered so far."""

    candidate: Candidate
    distances: list[float] = field(default_factory=list)
    squared: float = 0.0
    seconds: float = 0.0
    count: int = 0
    features: Accumulator = field(default_factory=Accumulator)

    def add(self, images: Tensor, truth: Tensor, seconds: float, features: Features | None) -> None:
        """Count a batch of images beside the Signal-ODE's solution for the same noises."""
        self.squared += float((images - truth).square().flatten(1).mean(1).sum())
        self.seconds += seconds
        self.count += len(images)
        if features is not None:
            self.features.add(features(images))

    def close(self, reference: Statistics | None) -> None:
        """End a noise seed."""
        if reference is not None:
            self.distances.append(frechet_distance(self.features.statistics(), reference))
            self.features = Accumulator()

    @property
    def distance(self) -> float | None:
        """The mean over noise seeds."""
        return sum(self.distances) / len(self.distances) if self.distances else None

    def row(self) -> dict[str, Any]:
        """The figures."""
        return {
            "name": self.candidate.row,
            "calls": self.candidate.calls,
            "spacing": self.candidate.spacing,
            "frechet_distance": self.distance,
            "frechet_distances": self.distances,
            "path_error": self.squared / self.count,
            "images_per_second": self.count / self.seconds,
        }


def evaluate(
    students: Mapping[str, Sampler],
    teacher: Teacher,
    t_range: tuple[float, float],
    features: Features | None = None,
    reference: Statistics | None = None,
    num: int = 2000,
    seed: int = 0,
    repeats: int = 1,
    ddim_steps: Sequence[int] = DDIM_STEPS,
) -> dict[str, Any]:
    """Measure students and their teacher from the same noises.

    Args:
        students: one-step samplers by name.
        t_range: (t_min, t_max) of the teacher's rows and of the path.
        features, reference: for the Fréchet distance; without them only path error and speed are measured.
        num: samples a noise seed.
        seed: noise seed r uses the samples of seed ``seed + r · num``.
        repeats: noise seeds.
        ddim_steps: the teacher's rows; Heun with 50 steps, the ground truth, is always one.

    Returns:
        A JSON-ready dictionary; ``rows`` holds the teacher's rows, then the students'.
    """
    low, high = t_range
    truth = reference_path(teacher, low, high)
    heun = Measured(Candidate(f"Heun {HEUN_STEPS}", "even", 2 * HEUN_STEPS, truth))
    measured = [Measured(c) for c in teacher_candidates(teacher, low, high, ddim_steps)]
    measured += [Measured(Candidate(name, "one call", 1, sampler)) for name, sampler in students.items()]
    calls = sum(m.candidate.calls for m in [heun, *measured])
    with torch.no_grad(), progress("evaluating", calls * -(-num // BATCH) * repeats) as bar:
        for repeat in range(repeats):
            for eps in noise_batches(seed + repeat * num, num, teacher.shape, BATCH):
                solution = _timed(heun, eps, None, features)
                bar.advance(heun.candidate.calls)
                for entry in measured:
                    _timed(entry, eps, solution, features)
                    bar.advance(entry.candidate.calls)
            for entry in [heun, *measured]:
                entry.close(reference)
    rows = best_rows([*measured[: len(measured) - len(students)], heun, *measured[len(measured) - len(students) :]])
    return {
        "teacher": teacher.name,
        "features": features.name if features else None,
        "num": num,
        "seed": seed,
        "repeats": repeats,
        "t_min": low,
        "t_max": high,
        "rows": rows,
    }


def best_rows(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """One row a name: of several spacings, the one with the smaller distance (or path error) counts."""
    best: dict[str, Measured] = {}
    for entry in measured:
        name = entry.candidate.row
        if name not in best or _figure(entry) < _figure(best[name]):
            best[name] = entry
    return [entry.row() for entry in best.values()]


def find_reference(name: str | None, features: Features) -> Statistics:
    """Reference statistics: ``digits``, an ``.npz`` file, or a folder of images whose features are computed here.

    Raises:
        BootdiffError: if it cannot be read, was made with other features, or its images have another size.
    """
    if name == "digits" and not Path(name).exists():
        path = builtin_folder("digits") / "reference.npz"
    elif name is None or not Path(name).exists():
        raise BootdiffError(f"no reference at '{name}'; expected digits, an .npz file or a folder of images.")
    else:
        path = Path(name)
    if path.suffix != ".npz":
        return image_statistics(str(path), features)
    statistics, made_with = Statistics.load(path)
    if made_with is not None and made_with != features.name:
        raise BootdiffError(f"{path} was made with the features {made_with}, not {features.name}; make it anew.")
    return statistics


def image_statistics(data: str, features: Features) -> Statistics:
    """Feature statistics of a data set; smaller images are padded with black, as ``train-teacher`` pads them."""
    from bootdiff.data.images import load_images
    from bootdiff.data.sources import to_unit

    pixels = load_images(data)
    missing = features.shape[-1] - pixels.shape[-1]
    if pixels.shape[1] != features.shape[0] or missing < 0:
        raise BootdiffError(
            f"the images of {data} are {tuple(pixels.shape[1:])} but {features.name} takes {features.shape}."
        )
    pixels = torch.nn.functional.pad(pixels, (missing // 2, missing - missing // 2) * 2)
    accumulator = Accumulator()
    for batch in pixels.split(BATCH):
        accumulator.add(features(to_unit(batch)))
    return accumulator.statistics()


def default_features(teacher: Teacher, features: str | None, reference: str | None) -> tuple[str | None, str | None]:
    """The builtin teacher comes with features and a reference; for any other the user names them."""
    if teacher.shape == (1, 8, 8) and teacher.name == "digits":
        return features or "digits", reference or "digits"
    if (features is None) != (reference is None):
        missing = "--features" if features is None else "--reference"
        raise BootdiffError(f"a Fréchet distance needs both --features and --reference; {missing} is missing.")
    return features, reference


def open_features(name: str | None, teacher: Teacher) -> Features | None:
    """Load a feature space and check that it takes this teacher's images.

    Raises:
        BootdiffError: if it takes another shape.
    """
    if name is None:
        return None
    features = load_features(name)
    if tuple(features.shape) != tuple(teacher.shape):
        raise BootdiffError(
            f"{features.name} takes images of shape {features.shape}; {teacher.name} makes {teacher.shape}."
        )
    return features


def _figure(entry: Measured) -> float:
    return entry.squared if entry.distance is None else entry.distance


def _timed(entry: Measured, eps: Tensor, truth: Tensor | None, features: Features | None) -> Tensor:
    started = time.perf_counter()
    images = entry.candidate.sample(eps)
    seconds = time.perf_counter() - started
    entry.add(images, images if truth is None else truth, seconds, features)
    return images
