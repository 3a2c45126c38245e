"""Adding a LoRA to the weights of a teacher's pipeline: all of its layers, or none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bootdiff.core.errors import BootdiffError, first_line
from bootdiff.storage.files import load_tensors, read_json
from bootdiff.system.out_of_memory import let_pass
from bootdiff.system.quiet import quietly
from bootdiff.teachers.loading.components import Components
from bootdiff.teachers.loading.hub import one_file
from bootdiff.teachers.loading.weights import check_finite_tensors

#: the names that trainers give to the file of a LoRA in a folder
NAMES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
#: the names of LoRA's relatives that are not read, by patterns that their tensors' names match
RELATIVES = {
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "oft_blocks": "OFT",
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    r"\.on_input": "(IA)³",
    r"\.diff(_b)?$": "full difference",
}
#: the endings of the names of a layer's two matrices, as kohya, diffusers and PEFT write them
DOWN, UP = (".lora_down.weight", "lora_A.weight", ".down.weight"), (".lora_up.weight", "lora_B.weight", ".up.weight")
#: the prefix that PEFT puts before the names of the network that it wrapped
PEFT = "base_model.model."


def with_lora(parts: Components, lora: str, scale: float) -> Any:
    """Return the whole pipeline with a LoRA added to its weights.

    Raises:
        BootdiffError: if the LoRA cannot be read, is of another kind, or belongs to another architecture.
    """
    try:
        import peft  # noqa: F401
    except ImportError:
        raise BootdiffError("--lora needs peft; install it with: pip install 'bootdiff[lora]'.") from None
    path = _file(lora)
    tensors = _read(path)
    pipeline = parts.pipeline()
    if not hasattr(pipeline, "load_lora_weights"):
        raise BootdiffError(f"the {parts.pipeline_class} takes no LoRA; leave out --lora.")
    where: dict[str, Any] = {"pretrained_model_name_or_path_or_dict": path.parent, "weight_name": path.name}
    plain = _kohya(tensors, pipeline) or _unwrapped(tensors, path, pipeline)
    if plain is not None:
        where = {"pretrained_model_name_or_path_or_dict": plain}
    asked = sum(name.endswith(DOWN) for name in tensors)
    try:
        with quietly():
            pipeline.load_lora_weights(**where, use_safetensors=True)
            added = _layers(pipeline)
            pipeline.fuse_lora(lora_scale=scale)
            pipeline.unload_lora_weights()
    except Exception as error:  # peft and diffusers raise many kinds; each means that it does not fit
        let_pass(error)
        raise BootdiffError(
            f"the LoRA {lora} does not fit this {parts.pipeline_class} ({first_line(error)}); expected one that was "
            "trained for the same architecture."
        ) from error
    if added < asked:
        raise _lost(lora, parts, added, asked)
    return pipeline


def _lost(lora: str, parts: Components, added: int, asked: int) -> BootdiffError:
    """Return the error that some or all of the LoRA's layers are not in the pipeline."""
    kind, expected = parts.pipeline_class, "expected one that was trained for the same architecture."
    if added == 0:
        met = f"changes nothing in this {kind}: none of its {asked} layers is there"
    else:
        met = f"does not fit this {kind}: only {added} of its {asked} layers are there"
    return BootdiffError(f"the LoRA {lora} {met}; {expected}")


def _file(lora: str) -> Path:
    """Return the file that a name stands for: itself, the one in a folder, or the one in a repository of the hub."""
    path = Path(lora)
    if not path.exists() and (path.suffix in (".safetensors", ".bin") or lora[0] in "./~" or lora.count("/") != 1):
        raise BootdiffError(f"no LoRA at {lora}; expected a .safetensors file, a folder or a hub id.")
    if not path.exists():
        return one_file(lora, NAMES, beside=("adapter_config.json",))
    if path.is_file():
        if path.suffix != ".safetensors":
            raise BootdiffError(f"the LoRA {lora} is no .safetensors file, and others can run code; convert it.")
        return path
    there = sorted(path.glob("*.safetensors"))
    named = [file for file in there if file.name in NAMES] or there
    if len(named) != 1:
        found = ", ".join(file.name for file in named[:4]) or "none"
        raise BootdiffError(f"the folder {lora} should hold one LoRA in .safetensors, found {found}; name the file.")
    return named[0]


def _read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file: those of a LoRA, finite, and not all zero.

    Raises:
        BootdiffError: if the file holds no such LoRA; the message says what it is.
    """
    try:
        tensors = load_tensors(path)
    except BootdiffError as error:
        raise BootdiffError(f"the LoRA {path} does not fit: it {str(error).removeprefix(f'{path} ')}") from error
    kind = next((kind for mark, kind in RELATIVES.items() if any(re.search(mark, name) for name in tensors)), None)
    downs, ups = ([name for name in tensors if name.endswith(ends)] for ends in (DOWN, UP))
    if kind is not None or not downs:
        met = f"a {kind}" if kind is not None else f"no LoRA (it holds '{next(iter(tensors), 'nothing'):.60}')"
        raise BootdiffError(
            f"{path} is {met}, which is not read; expected a LoRA as diffusers, kohya or PEFT write it (two matrices a "
            "layer)."
        )
    _check_pairs(tensors, path)
    check_finite_tensors(tensors, path)
    if not any(bool(tensors[name].any()) for name in ups) or not any(bool(tensors[name].any()) for name in downs):
        raise BootdiffError(
            f"the LoRA {path} changes nothing: its matrices are zero, as at the first step of its training; give one "
            "that was saved later."
        )
    return tensors


def _check_pairs(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse a layer that lacks one of its two matrices, or whose alpha is no number."""
    for name, value in tensors.items():
        for ends, others in ((DOWN, UP), (UP, DOWN)):
            end = next((end for end in ends if name.endswith(end)), None)
            if end is not None:
                other = name.removesuffix(end) + others[ends.index(end)]
                if other not in tensors or value.ndim < 2:
                    raise BootdiffError(f"the LoRA {path} should hold two matrices a layer; '{other:.100}' is missing.")
        if name.endswith(".alpha") and value.numel() != 1:
            raise BootdiffError(f"the LoRA {path}: '{name:.100}' should be a number, got shape {tuple(value.shape)}.")


def _kohya(tensors: Mapping[str, Tensor], pipeline: Any) -> dict[str, Tensor] | None:
    """Return a kohya LoRA with its alphas multiplied into its matrices; None where stock diffusers reads it rightly.

    Where layers differ in alpha or rank, diffusers gives some of them the alpha of others. Where no output layer of a
    text encoder was trained, it leaves out other layers of that encoder.
    """
    layers = [name.removesuffix(DOWN[0]) for name in tensors if name.endswith(DOWN[0])]
    ranks = {layer: tensors[f"{layer}{DOWN[0]}"].shape[0] for layer in layers}
    alphas = {layer: float(tensors.get(f"{layer}.alpha", torch.tensor(rank))) for layer, rank in ranks.items()}
    even = len(set(zip(ranks.values(), alphas.values(), strict=True))) <= 1
    encoders = {layer.split("_text_model")[0] for layer in layers if layer.startswith("lora_te")}
    if even and all(any(layer.startswith(f"{one}_") and "out_proj" in layer for layer in layers) for one in encoders):
        return None
    plain = {name: value for name, value in tensors.items() if not name.endswith(".alpha")}
    for layer, rank in ranks.items():
        if f"{layer}{UP[0]}" in plain:
            plain[f"{layer}{UP[0]}"] = plain[f"{layer}{UP[0]}"].float() * (alphas[layer] / rank)
    own = _own_names(pipeline)
    if not all(layer in own for layer in layers):
        return plain  # SDXL's, in the names of its first code, which diffusers knows
    pairs = ((DOWN[0], DOWN[1]), (UP[0], UP[1]))
    return {f"{own[layer]}.{new}": plain[f"{layer}{old}"] for layer in layers for old, new in pairs}


def _own_names(pipeline: Any) -> dict[str, str]:
    """Return diffusers' name of every layer by kohya's name, which has underscores in place of points."""
    prefixes = {
        "unet": ("lora_unet_",),
        "text_encoder": ("lora_te_", "lora_te1_", "lora_te_text_model_", "lora_te1_text_model_"),
        "text_encoder_2": ("lora_te2_", "lora_te2_text_model_"),
    }
    networks = {part: network for part, network in pipeline.components.items() if isinstance(network, nn.Module)}
    return {
        f"{prefix}{name.replace('.', '_')}": f"{part}.{name}"
        for part, network in networks.items()
        for prefix in prefixes.get(part, ())
        for name, _ in network.named_modules()
    }


def _unwrapped(tensors: Mapping[str, Tensor], path: Path, pipeline: Any) -> dict[str, Tensor] | None:
    """Return a LoRA in PEFT's format under diffusers' names, with alpha multiplied in; None for another format."""
    if not all(name.startswith(PEFT) for name in tensors):
        return None
    words = read_json(path.parent / "adapter_config.json")
    if any(words.get(key) for key in ("use_dora", "modules_to_save", "layer_replication")):
        raise BootdiffError(f"{path.parent}: a LoRA with use_dora or modules_to_save is not read; merge it first.")
    bare = {name.removeprefix(PEFT): value for name, value in tensors.items()}
    part = _owner([name.rpartition(".lora_")[0] for name in bare], pipeline)
    plain = {}
    for name, value in bare.items():
        layer = name.rpartition(".lora_")[0]
        if name.endswith("lora_B.weight"):
            rank, alpha = value.shape[1], _alpha(words, layer, path)
            value = value.float() * (alpha / (sqrt(rank) if words.get("use_rslora") else rank))
        plain[f"{part}.{name}"] = value
    return plain


def _alpha(words: Mapping[str, Any], layer: str, path: Path) -> float:
    patterns = words.get("alpha_pattern") or {}
    found = next((value for key, value in patterns.items() if re.fullmatch(rf"(.*\.)?({key})", layer)), None)
    alpha = words.get("lora_alpha") if found is None else found
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise BootdiffError(f"{path.parent}/adapter_config.json: lora_alpha should be a number, got {alpha!r:.40}.")
    return float(alpha)


def _owner(layers: list[str], pipeline: Any) -> str:
    """Return the name of the component that has most of these layers."""
    networks = {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
    have = {name: {inner for inner, _ in part.named_modules()} for name, part in networks.items()}
    return max(have, key=lambda name: sum(layer in have[name] for layer in layers))


def _layers(pipeline: Any) -> int:
    """Return how many layers of the pipeline have got an addition."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    networks = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    return sum(isinstance(module, BaseTunerLayer) for network in networks for module in network.modules())
