"""Prompts as conditions of a training run, encoded once into its folder, or in the loop at every step."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError, Interrupted
from bootdiff.data.conditions import Conditions, Prompts
from bootdiff.data.prompt_cache import PromptCache, fits, row_bytes, write_cache
from bootdiff.data.prompts import PromptFile
from bootdiff.methods.settings import DistillationSettings
from bootdiff.storage.files import remove
from bootdiff.system.notes import note
from bootdiff.system.processes import gathered, word_of_first
from bootdiff.system.progress import is_first_process, progress
from bootdiff.teachers.adapters.base import Adapter
from bootdiff.teachers.encoding import COUNTED, PromptEncoder

ENCODED_AT_ONCE = 32


class Encoded(NamedTuple):
    """Prompts as conditions, the condition that guidance leads away from, and a hash of what they were made from."""

    conditions: Conditions
    null: Condition
    digest: str


def encode_prompts(
    file: PromptFile,
    adapter: Adapter,
    settings: DistillationSettings,
    folder: Path,
    device: torch.device | str,
    same: Encoded | None = None,
) -> Encoded:
    """Return a file's prompts as conditions.

    Args:
        folder: the folder of the cache, which is written only if the embeddings fit; the encoders are then removed from
            memory.
        device: the device on which the encoders run, unless they are kept on the CPU.
        same: another stage's encoded prompts, which are returned if this stage's encoders answer the same.

    Raises:
        BootdiffError: if an encoder is missing or damaged.
    """
    prompts = file.prompts
    encoder = PromptEncoder(adapter, "cpu" if settings.offload_encoders else device)
    null = encoder.negative(settings.negative_prompt).to("cpu")
    digest = f"{file.digest}-{_fingerprint(encoder, prompts[0])}"
    if same is not None and same.digest == digest:
        encoder.release()
        return same
    if _cached_for_all(file, encoder, folder, digest, settings.prompt_cache_gib):
        encoder.release()
        return Encoded(Prompts(len(prompts), PromptCache(folder).rows), null, digest)
    if settings.offload_encoders and is_first_process():
        print("warning: prompts are encoded on the CPU at every step; raise prompt_cache_gib?", file=sys.stderr)
    kept = () if settings.offload_encoders else encoder.modules
    return Encoded(Prompts(len(prompts), InLoop(encoder, prompts), kept), null, digest)


def _cached_for_all(file: PromptFile, encoder: PromptEncoder, folder: Path, digest: str, gib: float) -> bool:
    """Return whether every process sees a cache of these prompts.

    If there is none and it fits, it is written first.
    """
    prompts = file.prompts
    needed = row_bytes(encoder(prompts[:1])) * len(prompts)
    # One process decides for all: what it writes changes what another would find free.
    ready = is_first_process() and _cached(folder, digest, len(prompts))
    ready, fit = word_of_first((ready, ready or fits(folder, needed, gib)))
    if not ready and is_first_process():
        _report(file, encoder)
    if fit and not ready:
        _written_by_first(folder, encoder, prompts, digest)
    blind = [n for n, sees in enumerate(gathered(fit and _cached(folder, digest, len(prompts)))) if not sees]
    if blind and fit:
        note(f"process {blind[0]} does not see {folder}, so prompts are encoded at every step.")
    return not blind


@dataclass(frozen=True)
class InLoop:
    """Prompts that are encoded when they are drawn."""

    encoder: PromptEncoder
    prompts: Sequence[str]

    def __call__(self, numbers: Sequence[int]) -> Condition:
        return self.encoder([self.prompts[number] for number in numbers])


def _written_by_first(folder: Path, encoder: PromptEncoder, prompts: Sequence[str], digest: str) -> None:
    """Let the first process write the cache; where it is stopped, stop all processes.

    Raises:
        Interrupted: on every process, if the first one was stopped.
    """
    stopped: str | None = None
    if is_first_process():
        try:
            _write(folder, encoder, prompts, digest)
        except Interrupted as stop:
            stopped = str(stop)
    stopped = word_of_first(stopped)
    if stopped is not None:
        raise Interrupted(stopped)


def _write(folder: Path, encoder: PromptEncoder, prompts: Sequence[str], digest: str) -> None:
    remove(folder)
    what = f"encoding {folder.name.replace('-', ' ')}"  # prompts, or a base stage's
    try:
        write_cache(folder, len(prompts), _batches(encoder, prompts, what), digest)
    except KeyboardInterrupt:
        with suppress(OSError):  # where something else is in it
            folder.parent.rmdir()
        raise Interrupted("stopped while prompts were encoded; run the same command to begin again.") from None


def _batches(encoder: PromptEncoder, prompts: Sequence[str], what: str) -> Iterator[Condition]:
    with progress(what, len(prompts)) as bar:
        for start in range(0, len(prompts), ENCODED_AT_ONCE):
            part = prompts[start : start + ENCODED_AT_ONCE]
            yield encoder(part)
            bar.advance(len(part))


def _cached(folder: Path, digest: str, count: int) -> bool:
    if not folder.is_dir():
        return False
    try:
        cache = PromptCache(folder)
    except BootdiffError as error:
        note(f"the prompts are encoded again: {error}")
        return False
    return cache.digest == digest and cache.count == count


def _fingerprint(encoder: PromptEncoder, prompt: str) -> str:
    """Return a hash of the encoders' answer to a prompt.

    Another encoder, precision or tokenizer gives another hash, and so another cache.
    """
    answer = encoder([prompt])
    digest = hashlib.blake2b(digest_size=6)
    for name, value in sorted(answer.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} {value.double().sum():.4g}".encode())
    return digest.hexdigest()


def _report(file: PromptFile, encoder: PromptEncoder) -> None:
    """Print once which prompts of the file were left out, are not cleaned, or are cut off."""
    if file.blank:
        print(f"{file.source}: {len(file.prompts)} prompts; blank ones left out: {file.blank}.", file=sys.stderr)
    missing = [name for name in encoder.adapter.cleaners if find_spec(name) is None]
    if missing:
        print(
            f"warning: prompts are not cleaned as the {encoder.adapter.parts.pipeline_class} cleans them, because "
            f"{' and '.join(missing)} are missing; install them with: pip install 'bootdiff[prompts]'.",
            file=sys.stderr,
        )
    cut, window = encoder.too_long(file.prompts)
    if cut:
        looked = min(COUNTED, len(file.prompts))
        of = f"{len(file.prompts)}" if looked == len(file.prompts) else f"the first {looked}"
        print(
            f"warning: {cut} of {of} prompts are longer than the tokenizer's {window} tokens; their ends are cut off.",
            file=sys.stderr,
        )
