"""Loading network weights that are complete and finite, from files that cannot run code."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bootdiff.core.errors import BootdiffError, first_line
from bootdiff.system.out_of_memory import let_pass
from bootdiff.system.quiet import quietly
from bootdiff.teachers.loading.safety import check_files
from bootdiff.teachers.loading.shell import shell
from bootdiff.teachers.loading.stored import Stored, stored

Network = TypeVar("Network", bound=nn.Module)


def load_network(
    kind: type[Network],
    folder: Path,
    dtype: torch.dtype = torch.float32,
    variant: str | None = None,
    strict: bool = True,
) -> Network:
    """Load a network of diffusers or transformers from a local folder, complete and finite.

    The config's sizes are checked against the weights before memory is asked for, and nothing in the folder is run.

    Args:
        variant: the variant of the weight files, such as ``"fp16"`` for ``diffusion_pytorch_model.fp16.safetensors``.
        strict: whether the variant must be there; otherwise the plain weights serve in its place.

    Old folders hold ``.bin`` files only. These are read with ``torch.load(weights_only=True)``, which runs no code.

    Raises:
        BootdiffError: if the weights are missing, damaged, incomplete, another network's, or not finite.
    """
    check_files(folder)
    held = stored(folder, variant, kind.__name__, strict)
    shell(kind, folder, held)
    try:
        network, info = _read(kind, held, dtype)
    except Exception as error:  # both raise many kinds here; every one means that the file cannot be read
        let_pass(error)
        raise BootdiffError(f"the weights in {folder} cannot be read ({first_line(error)}); save them anew.") from error
    check_complete(info, folder)
    check_finite(network, folder)
    return network


def _read(kind: type[Network], held: Stored, dtype: torch.dtype) -> tuple[Network, Mapping[str, Any]]:
    """Return the network as its library reads it, and the library's account of the loading."""
    ours = hasattr(kind, "load_config")  # diffusers; transformers calls the precision otherwise
    with quietly(), held.unwrapped() as place:
        return kind.from_pretrained(  # type: ignore[attr-defined]  # every such class has it
            place,
            use_safetensors=held.safe,
            variant=held.variant,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # looked at later: the libraries' own errors do not name them
            local_files_only=True,
            **{"torch_dtype" if ours else "dtype": dtype},
        )


def check_complete(info: Mapping[str, Any], where: Path | str) -> None:
    """Refuse what diffusers and transformers only warn of: tensors that are missing, left over, or of other shapes.

    Args:
        info: a library's own account of a loading, without what it leaves out by design.

    Raises:
        BootdiffError: if there are any; the message names the first of them and their number.
    """
    shapes = sorted(str(entry[0]) for entry in info.get("mismatched_keys", ()))
    missing = sorted(set(map(str, info.get("missing_keys", ()))) - set(shapes))
    unknown = sorted(set(map(str, info.get("unexpected_keys", ()))) - set(shapes))
    found = (
        (missing, "lack {count} that the config asks for"),
        (shapes, "hold {count} of another shape than the config asks for"),
        (unknown, "hold {count} that the config does not know"),
    )
    for names, words in found:
        if names:
            count = f"{len(names)} tensor{'s' if len(names) > 1 else ''}"
            raise BootdiffError(
                f"the weights in {where} {words.format(count=count)}, such as '{names[0]:.80}'; weights and "
                "config.json must belong together."
            )


@torch.no_grad()
def aligned(network: Network) -> Network:
    """Move every weight of a network to memory of its own, and return the network.

    Weights from a file are windows into it, at odd addresses, where a CPU multiplies slower and rounds otherwise. So
    without this a copy of the network would not answer the same to the last bit.
    """
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data = tensor.data.clone()
    return network


def check_finite(network: nn.Module, where: Path | str) -> None:
    """Refuse weights that are not finite.

    Raises:
        BootdiffError: if there are any; the message names the first such tensor.
    """
    check_finite_tensors(network.state_dict(), where)


def check_finite_tensors(tensors: Mapping[str, Tensor], where: Path | str) -> None:
    """Refuse tensors that are not finite.

    Raises:
        BootdiffError: if there are any; the message names the first of them.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BootdiffError(
                f"'{name:.100}' in {where} has values that are not finite; the file is damaged or diverged."
            )


def weights_hash(network: nn.Module) -> str:
    """Return a short hash of every weight's name and bytes: one network has the same hash wherever it lies."""
    return tensors_hash(network.state_dict())


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return a short hash of tensors' names and bytes, as 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
