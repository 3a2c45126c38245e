"""Adapters: one file for each kind of diffusers pipeline. ``docs/extending.md`` shows how to add one."""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING

from bootdiff.errors import BootdiffError

if TYPE_CHECKING:
    from bootdiff.teachers.adapters.base import Adapter

#: stock pipeline class to ``module:adapter``; the modules are imported when asked for
ADAPTERS: dict[str, str | type[Adapter]] = {
    **dict.fromkeys(
        ("DDPMPipeline", "DDIMPipeline", "PNDMPipeline", "KarrasVePipeline", "ConsistencyModelPipeline"),
        "bootdiff.teachers.adapters.unet2d:UNet2D",
    ),
    "DiTPipeline": "bootdiff.teachers.adapters.dit:DiT",
    "StableDiffusionPipeline": "bootdiff.teachers.adapters.stable_diffusion:StableDiffusion",
    "StableDiffusionXLPipeline": "bootdiff.teachers.adapters.stable_diffusion:StableDiffusionXL",
    "IFPipeline": "bootdiff.teachers.adapters.deepfloyd:DeepFloyd",
    "IFSuperResolutionPipeline": "bootdiff.teachers.adapters.deepfloyd:DeepFloydUpscaler",
    "StableDiffusion3Pipeline": "bootdiff.teachers.adapters.stable_diffusion_3:StableDiffusion3",
    "FluxPipeline": "bootdiff.teachers.adapters.flux:Flux",
}
#: the group of entry points by which an installed package adds its own adapters
ENTRY_POINTS = "bootdiff.adapters"


def register_adapter(adapter: type[Adapter]) -> type[Adapter]:
    """Teach bootdiff the pipelines that ``adapter.pipelines`` names; usable as a decorator."""
    for name in adapter.pipelines:
        ADAPTERS[name] = adapter
    return adapter


def adapter_for(pipeline_class: str, met: str) -> type[Adapter]:
    """The adapter of a stock pipeline class.

    Args:
        met: what the user named, for the message.

    Raises:
        BootdiffError: for a class that no adapter reads, naming it and those supported.
    """
    if pipeline_class not in ADAPTERS:
        for entry in metadata.entry_points(group=ENTRY_POINTS):
            register_adapter(entry.load())
    found = ADAPTERS.get(pipeline_class)
    if found is None:
        raise BootdiffError(f"{met}, which is not supported; supported: {', '.join(ADAPTERS)}.")
    if isinstance(found, str):
        module, name = found.split(":")
        return getattr(import_module(module), name)
    return found
