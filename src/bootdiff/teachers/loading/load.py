"""Loading a teacher from what the user names: a builtin, a folder, a single file or a hub id."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bootdiff.config.teacher import names_function
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
            Diffusion, or else a hub id; from Python also a diffusers pipeline, which is used as it is, or a teacher,
            which is returned.
        revision: the branch, tag or commit on the hub; folders have none.
        variant: the variant of the weight files, such as ``"fp16"`` for ``diffusion_pytorch_model.fp16.safetensors``.
        dtype: the precision in which the network runs: ``"float32"``, ``"float16"`` or ``"bfloat16"``. x_0 is always
            float32.
        lora: a LoRA (file, folder or hub id) to add to the network.
        lora_scale: the strength of the LoRA; 1 adds it as it was trained.
        size: the side of the images in pixels, for latent models that can make others than their default.
        commit: a commit of a hub id, loaded in place of what its revision stands for now: the one that an earlier run
            used.
        pipeline_config: for a single file: the folder or hub id of the pipeline whose configs and tokenizers it uses.

    Raises:
        BootdiffError: if nothing of this name can be found, or it is no teacher that bootdiff supports.
    """
    name = os.fspath(name) if isinstance(name, os.PathLike) else name
    origin = Origin(
        name if isinstance(name, str) else type(name).__name__,
        revision=revision,
        variant=variant,
        dtype=choose(dtype, DTYPES, "dtype"),
        lora=lora,
        lora_scale=lora_scale,
        pipeline_config=pipeline_config,
        size=size,
    )
    if not isinstance(name, str):
        if origin.options.keys() - {"size"} or (isinstance(name, Teacher) and size is not None):
            raise BootdiffError(
                f"{origin.name} is loaded already, so {', '.join(origin.options)} cannot be changed; leave that out."
            )
        return name if isinstance(name, Teacher) else from_pipeline(name, size)
    if names_function(name):
        raise BootdiffError(
            f"{name} is a function of a Python file, which runs only where the command line names it: as distill's "
            "teacher, or by --teacher."
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
    """Return the teacher that a diffusers pipeline in memory makes, with whatever was loaded into it."""
    from diffusers import DiffusionPipeline

    if not isinstance(pipeline, DiffusionPipeline):
        raise BootdiffError(
            f"expected a folder, a hub id or a diffusers pipeline as the teacher, got {type(pipeline).__name__}; wrap "
            "a module as bootdiff.CallableTeacher(module, …)."
        )
    return read_parts(LoadedParts(pipeline, borrowed=True, size=size), type(pipeline).__name__, None)


def read_parts(parts: Components, name: str, origin: Origin | None) -> Teacher:
    """Return the teacher that a pipeline's parts make."""
    kind = adapter_of_index(parts.index, name)
    if parts.pipeline_class not in kind.pipelines:  # somebody's own class, read as one that is known
        parts.index["_class_name"] = kind.pipelines[0]
    adapter = kind(parts)
    teacher = PipelineTeacher(adapter, adapter.load(), name)
    teacher.origin = origin
    return teacher if isinstance(teacher.limit, NoLimit) else Limited(teacher)
