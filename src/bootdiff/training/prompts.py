"""Prompts as conditions of a training run: encoded once into its folder, or in the loop."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from bootdiff.condition import Condition
from bootdiff.data.conditions import Conditions, Prompts
from bootdiff.data.prompt_cache import PromptCache, fits, row_bytes, write_cache
from bootdiff.data.prompts import PromptFile
from bootdiff.errors import BootdiffError
from bootdiff.files import remove
from bootdiff.objectives.settings import DistillationSettings
from bootdiff.progress import progress
from bootdiff.teachers.adapters.base import Adapter
from bootdiff.teachers.encoding import PromptEncoder

ENCODED_AT_ONCE = 32


def encode_prompts(
    file: PromptFile, adapter: Adapter, settings: DistillationSettings, folder: Path, device: torch.device | str
) -> tuple[Conditions, Condition]:
    """A file's prompts as conditions, and what guidance leads away from.

    Args:
        folder: for the cache; it is made only if the embeddings fit, and the encoders then leave memory.
        device: where the encoders run, unless they are kept on the CPU.

    Raises:
        BootdiffError: if an encoder is missing or damaged.
    """
    prompts, state = file.prompts, PartialState()
    encoder = PromptEncoder(adapter, "cpu" if settings.offload_encoders else device)
    null = encoder.negative(settings.negative_prompt).to("cpu")
    digest = f"{file.digest}-{_fingerprint(encoder, prompts[0])}"
    needed = row_bytes(encoder(prompts[:1])) * len(prompts)
    if state.is_main_process and folder.name == "prompts":  # not again for the base stage
        _report(file, *encoder.too_long(prompts))
    # One process decides for all: what it writes changes what another would find free.
    answer = [_cached(folder, digest, len(prompts)) or fits(folder, needed, settings.prompt_cache_gib)]
    if not broadcast_object_list(answer)[0]:
        kept = () if settings.offload_encoders else encoder.modules
        return Prompts(len(prompts), InLoop(encoder, prompts), kept), null
    if state.is_main_process and not _cached(folder, digest, len(prompts)):
        remove(folder)
        write_cache(folder, len(prompts), _batches(encoder, prompts), digest)
    state.wait_for_everyone()
    adapter.parts.release(*adapter.encoders)
    return Prompts(len(prompts), PromptCache(folder).rows), null


@dataclass(frozen=True)
class InLoop:
    """Prompts encoded when they are drawn."""

    encoder: PromptEncoder
    prompts: Sequence[str]

    def __call__(self, numbers: Sequence[int]) -> Condition:
        return self.encoder([self.prompts[number] for number in numbers])


def _batches(encoder: PromptEncoder, prompts: Sequence[str]) -> Iterator[Condition]:
    with progress("encoding prompts", len(prompts)) as bar:
        for start in range(0, len(prompts), ENCODED_AT_ONCE):
            part = prompts[start : start + ENCODED_AT_ONCE]
            yield encoder(part)
            bar.advance(len(part))


def _cached(folder: Path, digest: str, count: int) -> bool:
    if not folder.is_dir():
        return False
    try:
        cache = PromptCache(folder)
    except BootdiffError:
        return False
    return cache.digest == digest and cache.count == count


def _fingerprint(encoder: PromptEncoder, prompt: str) -> str:
    """Of what the encoders answer: another encoder, precision or tokenizer makes another cache."""
    answer = encoder([prompt])
    digest = hashlib.blake2b(digest_size=6)
    for name, value in sorted(answer.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} {value.double().sum():.4g}".encode())
    return digest.hexdigest()


def _report(file: PromptFile, cut: int, window: int) -> None:
    """Say once what of the file was left out or is cut off."""
    if file.blank:
        print(f"{file.source}: {len(file.prompts)} prompts; blank ones left out: {file.blank}.", file=sys.stderr)
    if cut:
        print(
            f"warning: {cut} of {len(file.prompts)} prompts are longer than the tokenizer's {window} tokens; their "
            "ends are cut off.",
            file=sys.stderr,
        )
