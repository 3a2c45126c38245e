"""From what the user names (a builtin, a folder, a single file, a hub id) to a teacher."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bootdiff.core.errors import BootdiffError, choose
from bootdiff.teachers.adapters import adapter_of_index
from bootdiff.teachers.base import Limited, Origin, Teacher
from bootdiff.teachers.limits import NoLimit
from bootdiff.teachers.loading.components import Components
from bootdiff.teachers.loading.hub import commit_of, resolve_pipeline
from bootdiff.teachers.loading.loaded import LoadedParts
from bootdiff.teachers.loading.lora import with_lora
from bootdiff.teachers.loading.parts import Parts
from bootdiff.teachers.loading.single_file import single_file
from bootdiff.teachers.pipeline import PipelineTeacher

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load_teacher(
    name: Any,
    revision: str | None = None,
    variant: str | None = None,
    dtype: str = "float32",
    lora: str | None = None,
    lora_scale: float = 1.0,
    pipeline_config: str | None = None,
    size: int | None = None,
    commit: str | None = None,
) -> Teacher:
    """Load a teacher; its x_0 is clipped or thresholded where its scheduler says so.

    Args:
        name: a folder, a builtin name (``digits``) if no such folder exists, a single ``.safetensors`` file of Stable
            Diffusion, or else a hub id; from Python also a diffusers pipeline, as it is.
        revision: branch, tag or commit on the hub; folders have none.
        variant: of the weight files, such as ``"fp16"`` for ``diffusion_pytorch_model.fp16.safetensors``.
        dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``: what the network runs in. x_0 is float32 always.
        lora: a LoRA (file, folder or hub id) to add to the network.
        lora_scale: its strength.
        size: side of the images in pixels, for latent models that can make others than their default.
        commit: of a hub id, loaded in place of what its revision is by now: the one that an earlier run has met.
        pipeline_config: for a single file: folder or hub id of the pipeline whose configs and tokenizers it uses.

    Raises:
        BootdiffError: if there is no such thing, or it is no teacher that bootdiff supports.
    """
    if not isinstance(name, str):
        return from_pipeline(name, size)
    origin = Origin(
        name,
        revision=revision,
        variant=variant,
        dtype=choose(dtype, DTYPES, "dtype"),
        lora=lora,
        lora_scale=lora_scale,
        pipeline_config=pipeline_config,
        size=size,
    )
    if name.endswith((".safetensors", ".ckpt")):
        parts: Components = LoadedParts(single_file(name, DTYPES[dtype], pipeline_config), size=size)
    else:
        if pipeline_config is not None:
            raise BootdiffError(f"--pipeline-config is for single .safetensors files; {name} brings its own.")
        folder = resolve_pipeline(name, commit or revision, variant)
        if not Path(name).exists():
            origin = replace(origin, commit=commit_of(folder))
        if (folder / "bootdiff.json").exists():
            raise BootdiffError(f"{name} is a one-step student that bootdiff made, not a teacher; name its teacher.")
        parts = Parts(folder, variant, DTYPES[dtype], size)
    if lora is not None:
        adapter_of_index(parts.index, name)  # before the whole pipeline is loaded
        parts = LoadedParts(with_lora(parts, lora, lora_scale), size=size)
    return read_parts(parts, name, origin)


def from_pipeline(pipeline: Any, size: int | None = None) -> Teacher:
    """A diffusers pipeline in memory, with whatever was loaded into it."""
    from diffusers import DiffusionPipeline

    if not isinstance(pipeline, DiffusionPipeline):
        raise BootdiffError(
            f"expected a folder, a hub id or a diffusers pipeline as the teacher, got {type(pipeline).__name__}; wrap "
            "a module as bootdiff.CallableTeacher(module, …)."
        )
    return read_parts(LoadedParts(pipeline, borrowed=True, size=size), type(pipeline).__name__, None)


def read_parts(parts: Components, name: str, origin: Origin | None) -> Teacher:
    """The teacher that a pipeline's parts make."""
    kind = adapter_of_index(parts.index, name)
    if parts.pipeline_class not in kind.pipelines:  # somebody's own class, read as one that is known
        parts.index["_class_name"] = kind.pipelines[0]
    adapter = kind(parts)
    teacher = PipelineTeacher(adapter, adapter.load(), name)
    teacher.origin = origin
    return teacher if isinstance(teacher.limit, NoLimit) else Limited(teacher)
