"""The figures of one look, which compare the student's answers to fixed noises with the ends of the teacher's path."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bootdiff.monitoring.convergence import FRECHET, NOISE
from bootdiff.monitoring.noises import Noises, samples_of
from bootdiff.monitoring.path_ends import PathEnds, Space, channels, colours, diversity_of, mean_square
from bootdiff.monitoring.probes import probed
from bootdiff.monitoring.watch_plan import COUNTS, EXACT
from bootdiff.students import Student
from bootdiff.teachers.features import TeacherFeatures

#: the noise of a distance as a share of the teacher's variance, where there are many samples' features
FEATURE_NOISE = 0.005


def figures_of(student: Student, truth: PathEnds, noises: Noises, features: TeacherFeatures | None) -> dict[str, Any]:
    """Return the figures of a look by name, as ``watch.jsonl`` holds them.

    Args:
        truth: the ends of the teacher's path, with which the student is compared.
        features: the teacher's features, where it has any.
    """
    made, views, textures = samples_of(student, noises, None if truth.by_values else features)
    finite = bool(torch.isfinite(made).all() and torch.isfinite(views).all())
    exact = min(EXACT, noises.count)
    many = noises.count >= COUNTS[0] and not truth.by_values
    return {
        "path_error": mean_square(made[:exact] - truth.ends[:exact]) if finite else math.inf,
        **probed(student, truth, noises),
        "frechet_distance": truth.space.distance(views) if finite else math.inf,
        "distance_noise": FEATURE_NOISE if many else NOISE[FRECHET],
        "diversity": diversity_of(made),
        "teacher_diversity": truth.diversity,
        "teacher_variance": truth.space.variance,
        **_texture(truth.texture, textures),
        "count": noises.count,
        **channels("", made, truth.saturated),
        **channels("teacher_", truth.ends, truth.saturated),
        **colours("", made),
        **colours("teacher_", truth.ends),
    }


def _texture(space: Space | None, textures: Tensor) -> dict[str, float]:
    """Return the distance of the student's textures from the teacher's, and their variance.

    Both are left out where the teacher's network shows no textures.
    """
    if space is None:
        return {}
    return {"texture_distance": space.distance(textures), "teacher_texture_variance": space.variance}
