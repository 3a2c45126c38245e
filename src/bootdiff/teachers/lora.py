"""A LoRA, added to the weights of a teacher's pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bootdiff.errors import BootdiffError, first_line
from bootdiff.out_of_memory import let_pass
from bootdiff.quiet import quietly
from bootdiff.teachers.parts import Parts


def with_lora(parts: Parts, lora: str, scale: float) -> Any:
    """The whole pipeline with a LoRA added to its weights.

    Raises:
        BootdiffError: if the LoRA cannot be read, or is one of another architecture.
    """
    try:
        import peft  # noqa: F401
    except ImportError:
        raise BootdiffError("--lora needs peft; install it with: pip install 'bootdiff[lora]'.") from None
    path = Path(lora)
    if not path.exists() and (path.suffix in (".safetensors", ".bin") or lora[0] in "./~" or lora.count("/") != 1):
        raise BootdiffError(f"no LoRA at {lora}; expected a .safetensors file, a folder or a hub id.")
    pipeline = parts.pipeline()
    if not hasattr(pipeline, "load_lora_weights"):
        raise BootdiffError(f"the {parts.pipeline_class} takes no LoRA; leave out --lora.")
    where = {"pretrained_model_name_or_path_or_dict": path.parent, "weight_name": path.name} if path.is_file() else {
        "pretrained_model_name_or_path_or_dict": lora}  # fmt: skip
    before = _fingerprint(pipeline)
    try:
        with quietly():
            pipeline.load_lora_weights(**where, use_safetensors=True)
            pipeline.fuse_lora(lora_scale=scale)
            pipeline.unload_lora_weights()
    except Exception as error:  # peft and diffusers raise many kinds; each means that it does not fit
        let_pass(error)
        raise BootdiffError(
            f"the LoRA {lora} does not fit this {parts.pipeline_class} ({first_line(error)}); expected one that was "
            "trained for the same architecture."
        ) from error
    if scale != 0 and _fingerprint(pipeline) == before:
        raise BootdiffError(
            f"the LoRA {lora} changes nothing in this {parts.pipeline_class}: none of its layers is there; expected "
            "one that was trained for the same architecture."
        )
    return pipeline


def _fingerprint(pipeline: Any) -> list[float]:
    modules = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    return [float(p.detach().double().sum()) for module in modules for p in module.parameters()]
