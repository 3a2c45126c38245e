"""Loading network weights: safetensors only, complete, and finite."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import ModelMixin
from torch import nn

from bootdiff.errors import BootdiffError

Network = TypeVar("Network", bound=ModelMixin)


def load_network(kind: type[Network], folder: Path, dtype: torch.dtype = torch.float32) -> Network:
    """Load a diffusers network from a local folder.

    Raises:
        BootdiffError: if the weights are missing, pickled, truncated, incomplete or not finite.
    """
    pickled = [p.name for p in folder.glob("*.bin")] + [p.name for p in folder.glob("*.pt")]
    if not list(folder.glob("*.safetensors")):
        came = f"only {', '.join(pickled)}, which is pickled and could run code" if pickled else "none"
        raise BootdiffError(f"expected .safetensors weights in {folder}, found {came}; save the model as safetensors.")
    try:
        network, info = kind.from_pretrained(
            folder, use_safetensors=True, torch_dtype=dtype, output_loading_info=True, local_files_only=True
        )
    except Exception as error:  # diffusers raises many kinds here; every one means that the file cannot be read
        raise BootdiffError(
            f"the weights in {folder} cannot be read ({_first_line(error)}); save them anew."
        ) from error
    if info["missing_keys"]:
        raise BootdiffError(
            f"the weights in {folder} lack {len(info['missing_keys'])} tensors that the config asks for, such as "
            f"'{info['missing_keys'][0]}'; weights and config.json must belong together."
        )
    check_finite(network, folder)
    return network


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
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
