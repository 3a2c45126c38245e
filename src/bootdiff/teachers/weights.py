"""Loading network weights: complete, finite, and from files that cannot run code."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bootdiff.errors import BootdiffError, first_line
from bootdiff.out_of_memory import let_pass
from bootdiff.quiet import quietly

Network = TypeVar("Network", bound=nn.Module)


def load_network(
    kind: type[Network], folder: Path, dtype: torch.dtype = torch.float32, variant: str | None = None
) -> Network:
    """Load a diffusers network from a local folder.

    Args:
        variant: of the weight files, such as ``"fp16"`` for ``diffusion_pytorch_model.fp16.safetensors``.

    Old folders hold ``.bin`` files only: they are read with ``torch.load(weights_only=True)``, which runs no code.

    Raises:
        BootdiffError: if the weights are missing, damaged, incomplete or not finite.
    """
    safe = _check_files(folder, variant)
    check_config(kind, folder)
    try:
        with quietly():
            network, info = kind.from_pretrained(  # type: ignore[attr-defined]  # every diffusers network has it
                folder,
                use_safetensors=safe,
                variant=variant,
                torch_dtype=dtype,
                output_loading_info=True,
                local_files_only=True,
            )
    except Exception as error:  # diffusers raises many kinds here; every one means that the file cannot be read
        let_pass(error)
        raise BootdiffError(f"the weights in {folder} cannot be read ({first_line(error)}); save them anew.") from error
    if info["missing_keys"]:
        raise BootdiffError(
            f"the weights in {folder} lack {len(info['missing_keys'])} tensors that the config asks for, such as "
            f"'{info['missing_keys'][0]}'; weights and config.json must belong together."
        )
    check_finite(network, folder)
    return aligned(network)


@torch.no_grad()
def aligned(network: Network) -> Network:
    """Move every weight to memory of its own.

    Weights from a file are windows into it, at odd addresses, where a CPU multiplies slower and rounds otherwise: a
    copy of the network would not answer the same to the last bit.
    """
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data = tensor.data.clone()
    return network


def check_config(kind: type[Any], folder: Path) -> None:
    """Build a network of diffusers or transformers from its config, without weights.

    Raises:
        BootdiffError: if the config is missing or says something impossible.
    """
    from accelerate import init_empty_weights

    if not (folder / "config.json").is_file():  # transformers would take its class's defaults
        raise BootdiffError(f"{folder} has no config.json; expected that of a {kind.__name__}.")
    try:
        with quietly(), init_empty_weights():
            if hasattr(kind, "load_config"):  # diffusers
                kind.from_config(kind.load_config(folder, local_files_only=True))
            else:
                kind(kind.config_class.from_pretrained(folder, local_files_only=True))
    except Exception as error:  # whatever a class does with a value that it does not expect
        let_pass(error)
        raise BootdiffError(
            f"{folder / 'config.json'} makes no {kind.__name__} ({first_line(error)}); check its values."
        ) from error


def check_weights(folder: Path, kind: str) -> None:
    """Look at the heads of a component's weight files, without reading them.

    Raises:
        BootdiffError: if there are none, or one is damaged.
    """
    from safetensors import SafetensorError, safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files and not any(folder.glob("*.bin")):
        raise BootdiffError(f"{folder} has no weights; expected .safetensors of a {kind} there.")
    for file in files:
        try:
            with safe_open(file, "pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise BootdiffError(f"{file} is damaged ({first_line(error)}); fetch or save it again.") from error


def _check_files(folder: Path, variant: str | None) -> bool:
    """Whether there are safetensors; refuse a folder without weights, or without those of the variant."""
    safe = sorted(p.name for p in folder.glob("*.safetensors"))
    there = safe or sorted(p.name for p in folder.glob("*.bin"))
    if not there:
        raise BootdiffError(f"expected .safetensors weights in {folder}, found none.")
    if variant is not None and not any(f".{variant}." in name or f".{variant}-" in name for name in there):
        raise BootdiffError(f"{folder} has no weights of variant '{variant}', only {', '.join(there[:4])}.")
    if variant is None and all(name.count(".") > 1 for name in there):
        raise BootdiffError(
            f"{folder} holds only variants of the weights ({', '.join(there[:4])}); name one with --variant."
        )
    return bool(safe)


def check_finite(network: nn.Module, where: Path | str) -> None:
    """Refuse weights that are not finite.

    Raises:
        BootdiffError: naming the first such tensor.
    """
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BootdiffError(f"'{name}' in {where} has values that are not finite; the file is damaged or diverged.")


def weights_hash(network: nn.Module) -> str:
    """A short hash of every weight's name and bytes: the same network has the same hash wherever it lies."""
    return tensors_hash(network.state_dict())


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """Of their names and bytes."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
