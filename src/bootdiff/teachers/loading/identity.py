"""Identifying a pipeline besides its denoising network, by a hash of its other components' files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from bootdiff.teachers.adapters.base import Adapter

#: the most bytes of a file that is hashed as a whole, and the bytes at both ends of a larger one that are hashed
HASHED, ENDS = 200 * 2**20, 2**20


def components_hash(adapter: Adapter) -> str:
    """Return a hash of encoders, tokenizers and autoencoder, as 16 hexadecimal digits.

    These are all components but the denoising network and the scheduler.
    """
    digest = hashlib.blake2b(adapter.parts.digest(adapter.network_part).encode(), digest_size=8)
    for part in sorted(adapter.parts.components):
        where = adapter.parts.where(part)
        if part in (adapter.network_part, "scheduler") or not where.is_dir():
            continue
        for path in sorted(where.rglob("*")):
            if path.is_file():
                digest.update(f"{part}/{path.relative_to(where)} {_told(path)}\n".encode())
    return digest.hexdigest()


def _told(path: Path) -> str:
    """Return a hash of a file's content, or of the size and the ends of a large file."""
    size, digest = path.stat().st_size, hashlib.blake2b(digest_size=8)
    with path.open("rb") as file:
        if size <= HASHED:
            while block := file.read(ENDS):
                digest.update(block)
        else:
            digest.update(f"{size} ".encode() + file.read(ENDS))
            file.seek(-ENDS, 2)
            digest.update(file.read(ENDS))
    return digest.hexdigest()
