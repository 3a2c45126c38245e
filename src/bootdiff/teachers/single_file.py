"""A whole Stable Diffusion model in one ``.safetensors`` file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bootdiff.errors import BootdiffError, first_line
from bootdiff.out_of_memory import let_pass
from bootdiff.quiet import quietly
from bootdiff.teachers.parts import silent


def single_file(name: str, dtype: torch.dtype, config: str | None = None) -> Any:
    """A Stable Diffusion checkpoint in its original format, as a pipeline.

    Args:
        config: folder or hub id of the pipeline whose configs and tokenizers it uses; from the hub by default.

    Raises:
        BootdiffError: if it is no safetensors file, or cannot be read.
    """
    import diffusers

    path = Path(name)
    if path.suffix != ".safetensors":
        raise BootdiffError(f"{path}: a .ckpt file can run code when it is loaded; expected a .safetensors file.")
    if not path.is_file():
        raise BootdiffError(f"no file at {path}; expected a .safetensors file of a whole Stable Diffusion model.")
    kind = "StableDiffusionXLPipeline" if _is_xl(path) else "StableDiffusionPipeline"
    options: dict[str, Any] = {"torch_dtype": dtype}
    if config is not None:
        options["config"] = config
    try:
        with quietly():
            return silent(getattr(diffusers, kind).from_single_file(str(path), **options))
    except Exception as error:  # diffusers raises many kinds; to the user each means that it cannot be read
        let_pass(error)
        raise BootdiffError(
            f"{path} cannot be read as a {kind} ({first_line(error)}); where its configs cannot be fetched from the "
            "hub, name a folder that has them with --pipeline-config."
        ) from error


def _is_xl(path: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return any(key.startswith("conditioner.embedders.1.") for key in file.keys())  # noqa: SIM118  no mapping
    except (OSError, SafetensorError) as error:
        raise BootdiffError(f"{path} cannot be read as safetensors ({error}).") from error
