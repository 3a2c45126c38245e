"""Adapters: one file for each kind of diffusers pipeline. ``docs/extending.md`` shows how to add one."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from bootdiff.core.errors import BootdiffError
from bootdiff.core.plugins import loaded, named

if TYPE_CHECKING:
    from bootdiff.teachers.adapters.base import Adapter

#: the adapter of each stock pipeline class, as ``module:adapter`` where its module is imported only when asked for
ADAPTERS: dict[str, str | type[Adapter]] = {
    **dict.fromkeys(
        ("DDPMPipeline", "DDIMPipeline", "PNDMPipeline", "KarrasVePipeline", "ConsistencyModelPipeline"),
        "bootdiff.teachers.adapters.unet2d:UNet2D",
    ),
    "DiTPipeline": "bootdiff.teachers.adapters.dit:DiT",
    "StableDiffusionPipeline": "bootdiff.teachers.adapters.stable_diffusion:StableDiffusion",
    "LatentConsistencyModelPipeline": "bootdiff.teachers.adapters.stable_diffusion:StableDiffusion",
    "StableDiffusionXLPipeline": "bootdiff.teachers.adapters.stable_diffusion:StableDiffusionXL",
    "IFPipeline": "bootdiff.teachers.adapters.deepfloyd:DeepFloyd",
    "IFSuperResolutionPipeline": "bootdiff.teachers.adapters.deepfloyd:DeepFloydUpscaler",
    "StableDiffusion3Pipeline": "bootdiff.teachers.adapters.stable_diffusion_3:StableDiffusion3",
    "FluxPipeline": "bootdiff.teachers.adapters.flux:Flux",
}
#: the group of entry points by which an installed package adds its own adapters
ENTRY_POINTS = "bootdiff.adapters"


def register_adapter(adapter: type[Adapter]) -> type[Adapter]:
    """Make ``adapter`` serve the pipelines that its ``pipelines`` names, and return it; usable as a decorator."""
    for name in adapter.pipelines:
        ADAPTERS[name] = adapter
    return adapter


def adapter_for(pipeline_class: str, met: str) -> type[Adapter]:
    """Return the adapter of a stock pipeline class.

    Args:
        met: the beginning of the message: what the user named, and what it is.

    Raises:
        BootdiffError: for a class that no adapter reads; the message names it and those that are supported.
    """
    if pipeline_class not in ADAPTERS:
        _load_entry_points()
    found = ADAPTERS.get(pipeline_class)
    if found is None:
        raise BootdiffError(f"{met}, which is not supported; supported: {', '.join(ADAPTERS)}.")
    if isinstance(found, str):
        module, name = found.split(":")
        return getattr(import_module(module), name)
    return found


def adapter_of_index(index: Mapping[str, Any], name: str) -> type[Adapter]:
    """Return the adapter for what a ``model_index.json`` says.

    Raises:
        BootdiffError: if there is none; the message names the pipeline, its network, and what is supported.
    """
    kind = str(index.get("_class_name", "pipeline"))
    unet = index.get("unet")
    pixels = not any(index.get(part) for part in ("vae", "vqvae", "movq"))
    if kind not in ADAPTERS:
        _load_entry_points()
    if kind not in ADAPTERS and pixels and isinstance(unet, list) and unet[-1] == "UNet2DModel":
        kind = "DDPMPipeline"  # somebody's own pipeline around a U-Net in pixel space
    return adapter_for(kind, f"{name} is a {index.get('_class_name', 'pipeline')} with {_denoiser(index)}")


def _load_entry_points() -> None:
    for entry in named(ENTRY_POINTS).values():
        register_adapter(loaded(entry, "adapter"))


def _denoiser(index: Mapping[str, Any]) -> str:
    for part in ("unet", "transformer", "prior"):
        if isinstance(index.get(part), list) and index[part]:
            return str(index[part][-1])
    return "no denoising network"
