"""Feature statistics of data sets on disk, so that each is computed once.

Each pair of a data set and a feature space has one ``.npz`` file in the layout of pytorch-fid, which also says what it
was made from. The folder is ``~/.cache/bootdiff/references``, or ``references`` in ``$BOOTDIFF_CACHE``; its files may
be removed at any time.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bootdiff.core.errors import BootdiffError, first_line
from bootdiff.data.hub import data_folder
from bootdiff.data.images import find_data, load_digits
from bootdiff.metrics.frechet import Statistics
from bootdiff.storage.arrays import read_npz
from bootdiff.storage.files import write_whole
from bootdiff.system.notes import note

#: the version of how images are prepared and samples drawn; files of another version are not used
VERSION = 2

#: the statistics of a data set, and some of its feature vectors, (n, d) in float32
Gathered = tuple[Statistics, Tensor]


def cache_folder() -> Path:
    """Return the folder of the files, which need not exist."""
    return Path(os.environ.get("BOOTDIFF_CACHE") or "~/.cache/bootdiff").expanduser() / "references"


def cached(data: str, features: str, make: Callable[[], Gathered]) -> Gathered:
    """Return what ``make`` gathers of this data in these features, from the cache if it is there.

    A file that is damaged, or was made from something else, is made anew. If the cache cannot be written, a warning
    says so.

    Args:
        features: the feature space's name with its hash.
    """
    made_of = {"features": features, "data": data_hash(data), "version": str(VERSION)}
    key = hashlib.blake2b("\n".join(made_of.values()).encode(), digest_size=10).hexdigest()
    path = cache_folder() / f"{key}.npz"
    found = _read(path, made_of)
    if found is not None:
        return found
    statistics, samples = make()
    try:
        write_whole(path, lambda temporary: _write(temporary, statistics, samples, made_of))
    except BootdiffError as error:
        print(f"warning: the reference is not kept for the next time: {error}", file=sys.stderr)
    return statistics, samples


def data_hash(data: str) -> str:
    """Return a short hash of a data set: of a file's content, or of a folder's file names, sizes and times of change.

    Raises:
        BootdiffError: if there is no such data set.
    """
    kind, files = find_data(data)
    digest = hashlib.blake2b(digest_size=10)
    if kind == "digits":
        digest.update(load_digits().numpy().tobytes())
    elif data_folder(data).is_file():
        with Path(data).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    else:
        for path in files:
            facts = path.stat()
            told = f"\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode()
            digest.update(os.fsencode(path.relative_to(data_folder(data))) + told)
    return digest.hexdigest()


def _write(path: Path, statistics: Statistics, samples: Tensor, made_of: dict[str, str]) -> None:
    known: dict[str, Any] = {"mu": statistics.mean.numpy(), "sigma": statistics.covariance.numpy(), **made_of}
    np.savez(path, **known, count=statistics.count, samples=samples.numpy())


def _read(path: Path, made_of: dict[str, str]) -> Gathered | None:
    """Return the content of a cached file; None if there is no file, or none that can be used."""
    if not path.is_file():
        return None
    try:
        statistics, _ = Statistics.load(path)
        held = read_npz(path, ("samples",), tuple(made_of))
    except BootdiffError as error:
        note(f"the kept features of {path.name} are damaged and are computed anew ({first_line(error)}).")
        return None
    same = all(word in held and str(held[word]) == value for word, value in made_of.items())
    samples = torch.from_numpy(held["samples"]).float() if "samples" in held else torch.zeros(0)
    fits = samples.ndim == 2 and samples.shape[1:] == statistics.mean.shape and bool(torch.isfinite(samples).all())
    return (statistics, samples) if same and fits else None
