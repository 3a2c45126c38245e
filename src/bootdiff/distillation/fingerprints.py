"""Short hashes of everything that a run reads; two runs are the same one only if these are equal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch

from bootdiff.storage.runs import COMPONENTS
from bootdiff.teachers import Teacher, adapter_of
from bootdiff.teachers.guidance import guidance_of
from bootdiff.teachers.loading.identity import components_hash
from bootdiff.teachers.loading.weights import tensors_hash, weights_hash


def sources_of(teacher: Teacher, conditions: Mapping[str, str], start: Path | None) -> dict[str, str]:
    """Return hashes of everything that another run must share with this one to be the same, as in ``meta.json``.

    Args:
        conditions: the hashes of the samples' conditions, by name.
        start: the folder of the saved student that the run goes on from, if it does.
    """
    hashes = {"teacher": teacher_hash(teacher)}
    adapter, guidance = adapter_of(teacher), guidance_of(teacher)
    if adapter is not None and not adapter.alone:
        hashes[COMPONENTS] = components_hash(adapter)
    if guidance is not None:
        hashes["guidance"] = f"{guidance.weight}-{tensors_hash(guidance.null)}"
    hashes.update(conditions)
    if start is not None:
        hashes["start"] = student_hash(start)
    return hashes


def teacher_hash(teacher: Teacher) -> str:
    """Return a hash of a teacher's weights, and of everything that says what they mean."""
    denoiser, adapter = teacher.denoiser, adapter_of(teacher)
    meaning = json.dumps(
        [
            _prediction(denoiser),
            teacher.shape,
            repr(teacher.limit),
            _noise_levels(denoiser),
            getattr(denoiser, "scheduler_config", None),
        ],
        sort_keys=True,
    )
    beside = adapter.parts.digest(adapter.network_part) if adapter is not None else ""
    own = hashlib.blake2b(f"{meaning}{beside}".encode(), digest_size=4).hexdigest()
    return f"{weights_hash(denoiser)}-{own}"


def _prediction(denoiser: Teacher) -> list[str] | None:
    """Return what the network's output is, in words; None if the denoiser does not read a network."""
    read = getattr(denoiser, "prediction", None)
    return None if read is None else [read.name, *map(str, vars(read).values())]


def _noise_levels(denoiser: Teacher) -> list[list[float]]:
    """Return alpha, sigma and what the network is told, at a few times.

    Schedules that agree there count as the same.
    """
    times = torch.linspace(0.05, 0.95, 7)
    return [values.tolist() for values in (*denoiser.schedule.alpha_sigma(times), denoiser.schedule.timestep(times))]


def student_hash(folder: Path) -> str:
    """Return a hash of an unfolded student's files."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(folder.rglob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()
