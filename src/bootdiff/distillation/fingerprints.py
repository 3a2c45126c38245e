"""Short hashes of all that a run reads: two runs are the same one only if these are equal."""

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
    """What another run must have in common with this one to be the same, by what it is called in ``meta.json``.

    Args:
        conditions: the hashes of what samples are conditioned on.
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
    """Of a teacher's weights, and of everything that says what they mean."""
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
    """What the network's output is, in words; None where the denoiser does not read a network."""
    read = getattr(denoiser, "prediction", None)
    return None if read is None else [read.name, *map(str, vars(read).values())]


def _noise_levels(denoiser: Teacher) -> list[list[float]]:
    """(alpha, sigma, what the network is told) at a few times: schedules that agree there are the same."""
    times = torch.linspace(0.05, 0.95, 7)
    return [values.tolist() for values in (*denoiser.schedule.alpha_sigma(times), denoiser.schedule.timestep(times))]


def student_hash(folder: Path) -> str:
    """Of the files of an unfolded student."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(folder.rglob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()
