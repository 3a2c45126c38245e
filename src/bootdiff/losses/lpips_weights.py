"""Reading LPIPS's weights from the user's own files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from bootdiff.core.errors import BootdiffError
from bootdiff.storage.files import load_state

#: VGG-16's convolutions, by their place in torchvision's ``features``; LPIPS compares the output of each stage
VGG_STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
VGG_CHANNELS = (64, 128, 256, 512, 512)


def read_lpips(path: Path) -> dict[str, Tensor]:
    """Return LPIPS's weights by our names, whichever of the two usual namings the files have.

    The names are ``conv0.weight`` … ``conv28.bias`` (the convolutions of VGG-16) and ``lin0`` … ``lin4`` (LPIPS's own
    linear layers). All values are float32.

    Raises:
        BootdiffError: if the path holds no such weights; the message names the first one that is missing or has another
            shape.
    """
    files = (
        [path] if path.is_file() else sorted(p for p in path.glob("*") if p.suffix in (".safetensors", ".pth", ".pt"))
    )
    if not files:
        raise BootdiffError(f"lpips_weights: no .safetensors or .pth file at {path}; expected one: check the name.")
    found: dict[str, Tensor] = {}
    holders: dict[str, Path] = {}
    for file in files:
        own = _named(load_state(file))
        twice = next((name for name in own if name in found), None)
        if twice is not None:
            raise BootdiffError(
                f"lpips_weights: {path} holds {twice} in two files, {holders[twice].name} and {file.name}; remove one."
            )
        found.update(own)
        holders.update(dict.fromkeys(own, file))
    _check_shapes(found, path)
    return {name: value.float() for name, value in found.items()}


def _named(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a file's weights by our names.

    The package ``lpips`` stores its linear layers under two names, which hold the same values.
    """
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if match := re.fullmatch(r"(?:net\.slice\d\.|features\.)(\d+)\.(weight|bias)", key):
            found[f"conv{match[1]}.{match[2]}"] = value
        elif match := re.fullmatch(r"lins?\.?(\d)\.model\.1\.weight", key):
            found[f"lin{match[1]}"] = value
    return found


def _check_shapes(found: Mapping[str, Tensor], path: Path) -> None:
    before = 3
    wanted: dict[str, tuple[int, ...]] = {}
    for number, (places, channels) in enumerate(zip(VGG_STAGES, VGG_CHANNELS, strict=True)):
        for place in places:
            wanted[f"conv{place}.weight"] = (channels, before, 3, 3)
            wanted[f"conv{place}.bias"] = (channels,)
            before = channels
        wanted[f"lin{number}"] = (1, channels, 1, 1)
    for name, shape in wanted.items():
        if name not in found:
            raise BootdiffError(f"lpips_weights: {path} lacks {name} of VGG-16 with LPIPS's linear layers.")
        if tuple(found[name].shape) != shape:
            raise BootdiffError(f"lpips_weights: {name} in {path} is {tuple(found[name].shape)}, expected {shape}.")
        if not bool(torch.isfinite(found[name]).all()):
            raise BootdiffError(f"lpips_weights: {name} in {path} has values that are not finite.")
