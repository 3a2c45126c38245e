"""From what the user names (a builtin, a folder, a hub id) to a teacher."""

from __future__ import annotations

from pathlib import Path

import torch

from bootdiff.builtin import BUILTIN_TEACHERS, builtin_folder
from bootdiff.errors import BootdiffError, choose, nearest
from bootdiff.files import read_json
from bootdiff.teachers.base import Limited, Origin, Teacher
from bootdiff.teachers.limits import NoLimit

SUPPORTED = "pipelines with an unconditional UNet2DModel (DDPM, DDIM, PNDM, … in pixel space)"

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load_teacher(name: str, revision: str | None = None, variant: str | None = None, dtype: str = "float32") -> Teacher:
    """Load a teacher; its x_0 is clipped or thresholded where its scheduler says so.

    Args:
        name: a folder, a builtin name (``digits``) if no such folder exists, or else a hub id.
        revision: branch, tag or commit on the hub; folders have none.
        variant: of the weight files, such as ``"fp16"`` for ``diffusion_pytorch_model.fp16.safetensors``.
        dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``: what the network runs in. x_0 is float32 always.

    Raises:
        BootdiffError: if there is no such thing, or it is no teacher that bootdiff supports.
    """
    origin = Origin(name, revision, variant, choose(dtype, DTYPES, "dtype"))
    folder = resolve_pipeline(name, revision, variant)
    index = read_json(folder / "model_index.json")
    if (folder / "bootdiff.json").exists():
        raise BootdiffError(f"{name} is a one-step student that bootdiff made, not a teacher; name its teacher.")
    _check_pixels(index, name)
    part = index.get("unet")
    kind = part[1] if isinstance(part, list) and len(part) == 2 else None
    if kind != "UNet2DModel":
        met = f"a {index.get('_class_name', 'pipeline')} with {_denoiser_of(index)}"
        raise BootdiffError(f"{name} is {met}, which is not supported yet; supported: {SUPPORTED}.")
    from bootdiff.teachers.unet2d import UNet2DTeacher

    teacher = UNet2DTeacher.from_folder(folder, name, variant, DTYPES[dtype])
    teacher.origin = origin
    return teacher if isinstance(teacher.limit, NoLimit) else Limited(teacher)


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

    weights = [f"*.{variant}{end}" for end in (".safetensors", "-*.safetensors")] if variant else ["*.safetensors"]
    # Without a variant, those of other precisions would be downloaded for nothing.
    others = None if variant else ["*.fp16*", "*.bf16*", "*.non_ema*"]
    try:
        folder = snapshot_download(name, revision=revision, allow_patterns=["*.json"])
        _check_pixels(read_json(Path(folder) / "model_index.json"), name)
        snapshot_download(name, revision=revision, allow_patterns=weights, ignore_patterns=others)
        if not list(Path(folder).rglob("*.safetensors")):
            snapshot_download(name, revision=revision, allow_patterns=["*.bin"], ignore_patterns=others)
    except BootdiffError:
        raise
    except Exception as error:  # the hub client raises many kinds; to the user each means "not to be had"
        where = f"'{name}'" if revision is None else f"'{name}' at revision '{revision}'"
        raise BootdiffError(
            f"{where} is no folder here and could not be fetched from the hub ({type(error).__name__}); check the "
            "spelling and the connection, or give a local folder."
        ) from error
    return Path(folder)


def _check_pixels(index: dict, name: str) -> None:
    """Refuse pipelines whose network denoises latents, before their weights are fetched."""
    coder = next((part for part in ("vae", "vqvae", "movq") if index.get(part)), None)
    if coder is not None:
        raise BootdiffError(f"{name} denoises latents (it has a {coder}), which is not supported yet; {SUPPORTED} are.")


def _denoiser_of(index: dict) -> str:
    for part in ("unet", "transformer", "prior"):
        if isinstance(index.get(part), list) and index[part]:
            return str(index[part][-1])
    return "no denoising network"
