"""Loading a whole Stable Diffusion model from one ``.safetensors`` file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bootdiff.core.errors import BootdiffError, first_line
from bootdiff.storage.reading import check_regular
from bootdiff.system.out_of_memory import let_pass
from bootdiff.system.quiet import quietly
from bootdiff.teachers.loading.components import silent
from bootdiff.teachers.loading.hub import config_folder
from bootdiff.teachers.loading.index import component_class, read_index
from bootdiff.teachers.loading.safety import check_files
from bootdiff.teachers.loading.shell import shell
from bootdiff.teachers.loading.stored import Stored, stored_shapes
from bootdiff.teachers.loading.weights import check_finite

UNET, VAE = "model.diffusion_model.", "first_stage_model."
ENCODERS = ("cond_stage_model.", "conditioner.embedders.")
#: what else a file may be: patterns for the beginnings of its tensors' names, and what the message says of it
OTHERS = (
    (r"(.*\.)?(lora_|hada_|lokr_)|.*\.lora[_.]", "a LoRA: name the model as the teacher, and this file with --lora"),
    (
        r"(model\.diffusion_model\.)?(double_blocks|joint_blocks)\.",
        "a Flux or Stable Diffusion 3 model: give its folder",
    ),
    (r"(down_blocks|input_blocks|up_blocks)\.", "a U-Net alone: give the folder or the file of the whole pipeline"),
    (r"(encoder|decoder|quant_conv)\.", "an autoencoder alone: give the folder or the file of the whole pipeline"),
    (
        r"(text_model|encoder\.block|shared)\.",
        "a text encoder alone: give the folder or the file of the whole pipeline",
    ),
)
#: matches tensors that no component takes, by design: those of the training, and those of CLIP beside its text model
LEFT = re.compile(r".*(\.loss\.|logit_scale|text_projection|position_ids)")


def single_file(name: str, dtype: torch.dtype, config: str | None = None) -> Any:
    """Return a Stable Diffusion checkpoint in its original format as a pipeline, complete and finite.

    Args:
        config: the folder or hub id of the pipeline whose configs and tokenizers it uses; from the hub by default.

    Raises:
        BootdiffError: if the file is no safetensors file of a whole model, or cannot be read.
    """
    import diffusers

    path = Path(name)
    if path.suffix != ".safetensors":
        raise BootdiffError(f"{path}: a .ckpt file can run code when it is loaded; expected a .safetensors file.")
    check_regular(path, "file of a whole Stable Diffusion model")
    held = Stored(path, (path,), None, stored_shapes(path))
    _check_whole(held)
    kind = (
        "StableDiffusionXLPipeline" if _starts(held.shapes, "conditioner.embedders.1.") else "StableDiffusionPipeline"
    )
    options: dict[str, Any] = {"torch_dtype": dtype}
    if config is not None:
        # From the hub, too, they are looked at before diffusers builds what they name.
        folder = Path(config) if Path(config).is_dir() else config_folder(config)
        _check_configs(folder, held)
        options["config"] = str(folder)
    try:
        with quietly():
            pipeline = silent(getattr(diffusers, kind).from_single_file(str(path), **options))
    except Exception as error:  # diffusers raises many kinds; to the user each means that it cannot be read
        let_pass(error)
        raise _unreadable(path, kind, error) from error
    _check_taken(path, pipeline)
    return pipeline


def _unreadable(path: Path, kind: str, error: Exception) -> BootdiffError:
    if "meta tensor" in str(error):
        return BootdiffError(f"{path} lacks tensors that the U-Net or the autoencoder of its configs need.")
    return BootdiffError(
        f"{path} cannot be read as a {kind} ({first_line(error)}); where its configs cannot be fetched from the hub, "
        "name a folder that has them with --pipeline-config."
    )


def _check_whole(held: Stored) -> None:
    """Refuse a file that is something else than a whole model; the message says what it is."""
    names, path = held.shapes, held.folder
    there = {
        "U-Net": _starts(names, UNET),
        "autoencoder": _starts(names, VAE),
        "text encoder": _starts(names, *ENCODERS),
    }
    lost = [part for part, here in there.items() if not here]
    flow = _starts(names, f"{UNET}double_blocks.", f"{UNET}joint_blocks.")
    if not lost and not flow:
        return
    if len(lost) < len(there) and not flow:
        raise BootdiffError(
            f"{path} holds no {' and no '.join(lost)}; expected the file of a whole Stable Diffusion model, or give "
            "the folder of its pipeline."
        )
    for pattern, words in OTHERS:
        if any(re.match(pattern, name) for name in names):
            raise BootdiffError(f"{path} is {words}.")
    raise BootdiffError(
        f"{path} is no Stable Diffusion model (its tensors have names such as '{next(iter(names), 'none'):.60}'); "
        "expected the file of a whole one."
    )


def _check_configs(folder: Path, held: Stored) -> None:
    """Check the sizes in the configs that are to be used against the file's weights."""
    for part, entry in read_index(folder).items():
        if isinstance(entry, list) and isinstance(entry[0], str) and (folder / part).is_dir():
            check_files(folder / part)
            kind = component_class(folder, part, *entry)
            if issubclass(kind, nn.Module):
                shell(kind, folder / part, held)


def _check_taken(path: Path, pipeline: Any) -> None:
    """Refuse a pipeline that holds tensors that the file lacks, or leaves out tensors that it holds.

    Names change on the way from the file to the pipeline; a tensor's size and the sum of its bits do not.

    Raises:
        BootdiffError: if there is such a tensor; the message names the tensor or its component.
    """
    from safetensors import safe_open

    networks = {part: module for part, module in pipeline.components.items() if isinstance(module, nn.Module)}
    there: dict[tuple[int, int], list[str]] = {}
    with safe_open(path, "pt") as file:
        for name in (name for name in file.keys() if name.startswith((UNET, VAE, *ENCODERS))):  # noqa: SIM118
            value = file.get_tensor(name)
            # OpenCLIP keeps queries, keys and values in one.
            for part in value.chunk(3) if "in_proj_" in name else (value,):
                if part.is_floating_point():
                    there.setdefault(_mark(part.to(pipeline.dtype)), []).append(name)
    for part, module in networks.items():
        own = dict(module.named_parameters())
        lost = next((name for name, value in own.items() if value.is_meta), None)
        if lost is None:
            check_finite(module, f"the {part} of {path}")
        marks = {} if lost is not None else {name: _mark(value) for name, value in own.items()}
        for mark, count in Counter(marks.values()).items():
            if len(there.get(mark, ())) < count:
                lost = next(name for name in marks if marks[name] == mark)
                break
            del there[mark][:count]
        if lost is not None:
            raise BootdiffError(f"{path} holds no '{lost}' of its {part}; file and configs must belong together.")
    left = [name for names in there.values() for name in names if _must_be_taken(name)]
    if left:
        raise BootdiffError(
            f"{path} holds {len(left)} tensors that its configs do not know, such as '{left[0]}'; name the pipeline "
            "that it belongs to with --pipeline-config."
        )


def _must_be_taken(name: str) -> bool:
    """Return whether a tensor must not be left over; stock diffusers drops OpenCLIP's last layer by design."""
    open_clip = name.startswith(ENCODERS) and ".transformer.text_model." not in name
    return not open_clip and LEFT.match(name) is None


def _mark(value: Tensor) -> tuple[int, int]:
    """Return (number of values, sum of their bits) of a tensor, which do not depend on its order and shape."""
    width = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[value.element_size()]
    return prod(value.shape), int(value.detach().contiguous().view(width).sum(dtype=torch.int64))


def _starts(names: Mapping[str, Any] | Iterable[str], *beginnings: str) -> bool:
    return any(name.startswith(beginnings) for name in names)
