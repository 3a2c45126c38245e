"""From what the user names (a builtin, a folder, a single file, a hub id) to a teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bootdiff.builtin import BUILTIN_TEACHERS, builtin_folder
from bootdiff.errors import BootdiffError, choose, nearest
from bootdiff.files import read_json
from bootdiff.quiet import quietly
from bootdiff.teachers.adapters import ADAPTERS, adapter_for
from bootdiff.teachers.base import Limited, Origin, Teacher
from bootdiff.teachers.limits import NoLimit
from bootdiff.teachers.parts import LoadedParts, Parts, first_line, network_parts, silent
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
        pipeline_config: for a single file: folder or hub id of the pipeline whose configs and tokenizers it uses.

    Raises:
        BootdiffError: if there is no such thing, or it is no teacher that bootdiff supports.
    """
    if not isinstance(name, str):
        return from_pipeline(name, size)
    origin = Origin(name, revision, variant, choose(dtype, DTYPES, "dtype"), lora, lora_scale, pipeline_config, size)
    if name.endswith((".safetensors", ".ckpt")):
        parts: Parts = LoadedParts(_single_file(origin), DTYPES[dtype])
    else:
        if pipeline_config is not None:
            raise BootdiffError(f"--pipeline-config is for single .safetensors files; {name} brings its own.")
        folder = resolve_pipeline(name, revision, variant)
        if (folder / "bootdiff.json").exists():
            raise BootdiffError(f"{name} is a one-step student that bootdiff made, not a teacher; name its teacher.")
        parts = Parts(folder, variant, DTYPES[dtype])
    if lora is not None:
        adapter_for(_class_of(parts.index), _met(name, parts.index))
        parts = LoadedParts(_with_lora(parts, lora, lora_scale), DTYPES[dtype])
    parts.size = size
    return read_parts(parts, name, origin)


def from_pipeline(pipeline: Any, size: int | None = None) -> Teacher:
    """A diffusers pipeline in memory, with whatever was loaded into it."""
    from diffusers import DiffusionPipeline

    if not isinstance(pipeline, DiffusionPipeline):
        raise BootdiffError(
            f"expected a folder, a hub id or a diffusers pipeline as the teacher, got {type(pipeline).__name__}; wrap "
            "a module as bootdiff.CallableTeacher(module, …)."
        )
    parts = LoadedParts(pipeline)
    parts.size = size
    return read_parts(parts, type(pipeline).__name__, None)


def from_network(network: Any, scheduler: Mapping[str, Any], name: str) -> PipelineTeacher:
    """A UNet2DModel in memory with a scheduler's config, its limit not applied."""
    parts = network_parts("DDPMPipeline", "unet", network, scheduler)
    return PipelineTeacher(adapter_for("DDPMPipeline", name)(parts), network, name)


def read_parts(parts: Parts, name: str, origin: Origin | None) -> Teacher:
    """The teacher that a pipeline's parts make."""
    adapter = adapter_for(_class_of(parts.index), _met(name, parts.index))(parts)
    teacher = PipelineTeacher(adapter, adapter.load(), name)
    teacher.origin = origin
    return teacher if isinstance(teacher.limit, NoLimit) else Limited(teacher)


def _class_of(index: Mapping[str, Any]) -> str:
    """The pipeline class to read it as: an unknown one around a UNet2DModel in pixel space is a DDPMPipeline."""
    name = str(index.get("_class_name", "pipeline"))
    unet = index.get("unet")
    pixels = not any(index.get(part) for part in ("vae", "vqvae", "movq"))
    if name not in ADAPTERS and pixels and isinstance(unet, list) and unet[-1] == "UNet2DModel":
        return "DDPMPipeline"
    return name


def _met(name: str, index: Mapping[str, Any]) -> str:
    return f"{name} is a {index.get('_class_name', 'pipeline')} with {_denoiser_of(index)}"


def _single_file(origin: Origin) -> Any:
    """A Stable Diffusion checkpoint in its original format.

    Raises:
        BootdiffError: if it is no safetensors file, or cannot be read.
    """
    import diffusers

    path = Path(origin.name)
    if path.suffix != ".safetensors":
        raise BootdiffError(f"{path}: a .ckpt file can run code when it is loaded; expected a .safetensors file.")
    if not path.is_file():
        raise BootdiffError(f"no file at {path}; expected a .safetensors file of a whole Stable Diffusion model.")
    kind = "StableDiffusionXLPipeline" if _is_xl(path) else "StableDiffusionPipeline"
    options: dict[str, Any] = {"torch_dtype": DTYPES[origin.dtype]}
    if origin.pipeline_config is not None:
        options["config"] = origin.pipeline_config
    try:
        with quietly():
            return silent(getattr(diffusers, kind).from_single_file(str(path), **options))
    except Exception as error:  # diffusers raises many kinds; to the user each means that it cannot be read
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


def _with_lora(parts: Parts, lora: str, scale: float) -> Any:
    """The whole pipeline with a LoRA added to its weights.

    Raises:
        BootdiffError: if the LoRA cannot be read, or is one of another architecture.
    """
    try:
        import peft  # noqa: F401
    except ImportError:
        raise BootdiffError("--lora needs peft; install it with: pip install 'bootdiff[lora]'.") from None
    pipeline = parts.pipeline()
    if not hasattr(pipeline, "load_lora_weights"):
        raise BootdiffError(f"a {parts.pipeline_class} takes no LoRA; leave out --lora.")
    path = Path(lora)
    if path.suffix and not path.is_file() and lora.count("/") != 1:
        raise BootdiffError(f"no LoRA at {lora}; expected a .safetensors file, a folder or a hub id.")
    where = {"pretrained_model_name_or_path_or_dict": path.parent, "weight_name": path.name} if path.is_file() else {
        "pretrained_model_name_or_path_or_dict": lora}  # fmt: skip
    before = _fingerprint(pipeline)
    try:
        with quietly():
            pipeline.load_lora_weights(**where, use_safetensors=True)
            pipeline.fuse_lora(lora_scale=scale)
            pipeline.unload_lora_weights()
    except Exception as error:  # peft and diffusers raise many kinds; each means that it does not fit
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


def resolve_pipeline(name: str, revision: str | None = None, variant: str | None = None) -> Path:
    """The local folder of a pipeline, downloaded from the hub if ``name`` is neither a folder nor a builtin.

    Raises:
        BootdiffError: if nothing by that name can be had.
    """
    folder = Path(name)
    if folder.exists():
        if not (folder / "model_index.json").is_file():
            raise BootdiffError(f"{name} is no diffusers pipeline: expected a folder with a model_index.json.")
        if revision is not None:
            raise BootdiffError(f"{name} is a folder, which has no revision '{revision}'; revisions are for hub ids.")
        return folder
    if name in BUILTIN_TEACHERS:
        if revision is not None or variant is not None:
            raise BootdiffError(f"the builtin {name} has no revisions and no variants; leave both out.")
        return builtin_folder(name) / "teacher"
    # A hub id has the form owner/model; anything else with a slash or a dot was meant as a path.
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        hint = nearest(name, BUILTIN_TEACHERS)
        raise BootdiffError(f"no folder and no builtin teacher is called '{name}'; builtin: digits.{hint}")
    return _download(name, revision, variant)


def _download(name: str, revision: str | None, variant: str | None) -> Path:
    from huggingface_hub import snapshot_download

    # Without a variant, those of other precisions would be downloaded for nothing.
    others = None if variant else ["*.fp16*", "*.bf16*", "*.non_ema*"]
    try:
        folder = snapshot_download(name, revision=revision, allow_patterns=["*.json"])
        index = read_json(Path(folder) / "model_index.json")
        adapter_for(_class_of(index), _met(name, index))  # before its weights are fetched
        parts = [part for part, entry in index.items() if isinstance(entry, list) and entry[0] is not None]
        for wanted in _weight_patterns(parts, variant):
            snapshot_download(name, revision=revision, allow_patterns=wanted, ignore_patterns=others)
            if list(Path(folder).rglob("*.safetensors")) or list(Path(folder).rglob("*.bin")):
                break
    except BootdiffError:
        raise
    except Exception as error:  # the hub client raises many kinds; to the user each means "not to be had"
        where = f"'{name}'" if revision is None else f"'{name}' at revision '{revision}'"
        raise BootdiffError(
            f"{where} is no folder here and could not be fetched from the hub ({type(error).__name__}); check the "
            "spelling and the connection, or give a local folder."
        ) from error
    return Path(folder)


def _weight_patterns(parts: Sequence[str], variant: str | None) -> Iterator[list[str]]:
    """What to fetch, the best first: safetensors of the components (a repository may hold single files of gigabytes
    beside them), those of the oldest pipelines in the folder itself, and at last pickles, read without running them."""
    for folders in ([f"{part}/" for part in parts], [""]):
        for kind in ("safetensors", "bin"):
            ends = [f".{variant}.{kind}", f".{variant}-*.{kind}"] if variant else [f".{kind}"]
            small = [f"{folder}*{end}" for folder in folders for end in (".txt", ".model")]  # of tokenizers
            yield [*(f"{folder}*{end}" for folder in folders for end in ends), *small]


def _denoiser_of(index: Mapping[str, Any]) -> str:
    for part in ("unet", "transformer", "prior"):
        if isinstance(index.get(part), list) and index[part]:
            return str(index[part][-1])
    return "no denoising network"
