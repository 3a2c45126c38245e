"""The figures of teachers' own samplers, which are kept so that each is measured once.

Each teacher, condition, feature space and reference has one JSON file, in ``~/.cache/bootdiff/curves`` or in ``curves``
of ``$BOOTDIFF_CACHE``; its files may be removed at any time. Those of the builtin teachers ship with the package.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bootdiff.builtin import builtin_folder
from bootdiff.core.errors import BootdiffError
from bootdiff.data.conditions import Classes, Conditions, Prompts, Unconditional, Weighted
from bootdiff.evaluation.cache import cache_folder
from bootdiff.evaluation.measure import Figures, Listed
from bootdiff.evaluation.tally import Judges
from bootdiff.metrics.estimate import Estimate
from bootdiff.metrics.registry import further_metrics
from bootdiff.storage.files import read_json, write_json
from bootdiff.system.notes import note
from bootdiff.teachers import NetworkTeacher, Teacher, adapter_of
from bootdiff.teachers.base import limit_of
from bootdiff.teachers.guidance import guidance_of
from bootdiff.teachers.loading.identity import components_hash
from bootdiff.teachers.loading.weights import tensors_hash, weights_hash

#: the version of how rows are measured; figures of another version are not used
VERSION = 2


class Known:
    """Figures that were measured before, by row and noise seed.

    Args:
        made_of: everything that the figures depend on, besides the row and its noises; None keeps nothing.
    """

    def __init__(self, made_of: Mapping[str, Any] | None) -> None:
        self.made_of = made_of
        self.rows: dict[str, dict[str, Any]] = {}
        if made_of is None:
            return
        key = hashlib.blake2b(json.dumps(made_of, sort_keys=True).encode(), digest_size=10).hexdigest()
        self.path = cache_folder().with_name("curves") / f"{key}.json"
        for path in (*builtin_folder("curves").glob(f"*-{key}.json"), self.path):
            self.rows |= self._read(path)

    def find(self, row: Mapping[str, Any], seed: int, num: int) -> dict[str, Estimate] | None:
        """Return the figures of a row on one noise seed; None if they are not known.

        Args:
            row: the row's identity.
            seed, num: the number of the first noise, and how many there are.
        """
        held = self.rows.get(_key(row, seed, num))
        return None if held is None else {name: Estimate(**words) for name, words in held["figures"].items()}

    def keep(self, row: Mapping[str, Any], seed: int, num: int, figures: Figures) -> None:
        """Remember figures, also on disk; if the disk refuses, a note says so once."""
        told = {name: figure.as_json() for name, figure in figures.items()}
        self.rows[_key(row, seed, num)] = {"row": dict(row), "seed": seed, "num": num, "figures": told}
        if self.made_of is None:
            return
        self.rows = {**self._read(self.path), **self.rows}  # another process may have written in between
        try:
            write_json(self.path, {"made_of": self.made_of, "rows": list(self.rows.values())})
        except BootdiffError as error:
            note(f"the teacher's rows are not kept for the next time: {error}")
            self.made_of = None

    def _read(self, path: Path) -> dict[str, dict[str, Any]]:
        """Return the rows in a file; none if there is no file, or none that can be used."""
        try:
            held = read_json(path) if path.is_file() else {}
            rows = held["rows"] if held.get("made_of") == self.made_of else []
            return {_key(entry["row"], entry["seed"], entry["num"]): entry for entry in rows if _whole(entry)}
        except (BootdiffError, KeyError, TypeError, AttributeError):
            return {}


def _key(row: Mapping[str, Any], seed: int, num: int) -> str:
    return json.dumps([dict(row), seed, num], sort_keys=True)


def _whole(entry: Mapping[str, Any]) -> bool:
    """Return whether an entry's figures can be read."""
    return all(isinstance(Estimate(**words).value, float | int) for words in entry["figures"].values())


def teacher_words(teacher: Teacher, listed: Listed) -> dict[str, Any] | None:
    """Return what a teacher's samples depend on, besides sampler and noises, as words that can be written as JSON.

    These are its weights and other components, its schedule and guidance, and the conditions.

    Returns:
        The words by name; None for a teacher whose files do not say everything, such as a module of the user's own.
    """
    adapter, denoiser = adapter_of(teacher), teacher.denoiser
    conditions = described(listed.conditions, listed.texts)
    if adapter is None or not isinstance(denoiser, NetworkTeacher) or conditions is None:
        return None
    guidance, config = guidance_of(teacher), adapter.parts.config(adapter.network_part)
    return {
        "version": VERSION,
        "weights": weights_hash(denoiser.network),
        "components": components_hash(adapter),
        "shape": list(teacher.shape),
        "network": {key: repr(value) for key, value in sorted(config.items()) if not key.startswith("_")},
        "prediction": [denoiser.prediction.name, repr(sorted(vars(denoiser.prediction).items()))],
        "schedule": [type(teacher.schedule).__name__, *_lambdas(teacher, [i / 8 for i in range(1, 9)])],
        "limit": repr(limit_of(teacher)),
        "conditions": conditions,
        "labels": None if listed.labels is None else list(listed.labels),
        "guidance": None if guidance is None else [guidance.weight, guidance.interval, tensors_hash(guidance.null)],
    }


def judge_words(judges: Judges) -> dict[str, Any]:
    """Return what the figures of samples depend on, besides the samples, as words that can be written as JSON.

    These are the feature space, the reference and the CLIP model.
    """
    reference = judges.reference
    return {
        "features": None if judges.features is None else judges.features.name,
        "reference": None if reference is None else tensors_hash(
            {"mean": reference.statistics.mean, "covariance": reference.statistics.covariance}
        ),
        # Their values differ in the last digit from machine to machine; which they are, the statistics say.
        "samples": None if reference is None or reference.samples is None else len(reference.samples),
        "clip": None if judges.clip is None else judges.clip.name,
        **({"metrics": sorted(further_metrics())} if further_metrics() else {}),
    }  # fmt: skip


def described(conditions: Conditions, texts: Sequence[str] | None) -> dict[str, Any] | None:
    """Return the conditions of samples in words.

    It is None if they cannot be described, for instance if another student makes them.
    """
    if isinstance(conditions, Weighted):
        inner = described(conditions.inner, texts)
        return None if inner is None else {**inner, "weight": conditions.shown}
    if isinstance(conditions, Classes):
        return {"classes": list(conditions.labels)}
    if isinstance(conditions, Unconditional):
        return {}
    if isinstance(conditions, Prompts) and texts is not None:
        digest = hashlib.blake2b("\0".join(texts).encode(), digest_size=8).hexdigest()
        return {"prompts": len(texts), "of": digest}
    return None


def _lambdas(teacher: Teacher, times: Sequence[float]) -> list[str]:
    return [f"{value:.6g}" for value in teacher.schedule.lambda_(torch.tensor(times, dtype=torch.float64)).tolist()]
