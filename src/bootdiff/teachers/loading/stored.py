"""What lies in a component's folder: which weights, how many, under which names. Only the heads of files are read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory

import torch

from bootdiff.core.errors import BootdiffError, first_line
from bootdiff.storage.files import read_json
from bootdiff.storage.reading import check_name, check_regular
from bootdiff.system.notes import note
from bootdiff.system.out_of_memory import let_pass

#: matches what torch's wrappers (compile, FSDP, activation checkpointing) leave in the names of what they wrap
WRAPPERS = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
#: the kinds of tensors that only quantised weights have; positions and counts are 64-bit integers
QUANTISED = ("I8", "U8", "I16", "U16", "I32", "U32")
#: matches the part of a file's name that says which part of a network it holds
SHARD = re.compile(r"-\d{5}-of-\d{5}")
#: the prefix that DataParallel puts before all names
PARALLEL = "module."


@dataclass(frozen=True)
class Stored:
    """The weight files of a component, and the shapes of the tensors in them.

    Args:
        files: the files that are read for the variant.
        variant: the variant asked for, if there are files of it; else None.
        shapes: the shape of every tensor in the files, by name.
    """

    folder: Path
    files: tuple[Path, ...]
    variant: str | None
    shapes: dict[str, tuple[int, ...]]

    @property
    def safe(self) -> bool:
        """Whether the files are safetensors; ``.bin`` files are read by ``torch.load(weights_only=True)``."""
        return self.files[0].suffix == ".safetensors"

    @property
    def numbers(self) -> int:
        """The number of values in all tensors together."""
        return sum(prod(shape) for shape in self.shapes.values())

    @contextmanager
    def unwrapped(self) -> Iterator[Path]:
        """Yield the folder, or a copy with plain names where the weights were saved from within a wrapper."""
        names = {name: self._plain(name) for name in self.shapes}
        if all(name == plain for name, plain in names.items()):
            yield self.folder
            return
        first = next(name for name, plain in names.items() if name != plain)
        note(f"the weights in {self.folder} were saved from within a wrapper ('{first}'); read as '{names[first]}'.")
        with TemporaryDirectory(prefix="bootdiff-") as place:
            for file in self.folder.glob("*.json"):
                copyfile(file, Path(place) / file.name)
            self._rewrite(names, Path(place))
            yield Path(place)

    def _plain(self, name: str) -> str:
        parallel = all(name.startswith(PARALLEL) for name in self.shapes)
        return WRAPPERS.sub(r"\1", name.removeprefix(PARALLEL) if parallel else name)

    def _rewrite(self, names: dict[str, str], place: Path) -> None:
        from safetensors.torch import load_file, save_file

        for file in self.files:
            tensors = load_file(file) if self.safe else _unpickled(file)
            plain = {names[name]: value.contiguous().clone() for name, value in tensors.items()}
            if self.safe:
                save_file(plain, place / file.name, metadata={"format": "pt"})
            else:
                torch.save(plain, place / file.name)
        for index in place.glob("*.index*.json"):
            words = read_json(index)
            words["weight_map"] = {names.get(name, name): file for name, file in words["weight_map"].items()}
            index.write_text(json.dumps(words), encoding="utf-8")


def stored(folder: Path, variant: str | None, kind: str, strict: bool = True) -> Stored:
    """Return the weight files of a folder that are read for a variant.

    Args:
        strict: whether the variant must be there; otherwise the plain weights serve in its place.

    Raises:
        BootdiffError: if there are no weights, only those of other variants, or a file is damaged.
    """
    safe = sorted(folder.glob("*.safetensors"))
    # A trainer's other .bin files (its arguments, an optimiser's state) are no weights.
    pickled = sorted([*folder.glob("pytorch_model*.bin"), *folder.glob("diffusion_pytorch_model*.bin")])
    if variant is None and safe and pickled and all(file.name.count(".") > 1 for file in safe):
        safe = []  # of another variant; the plain weights are the others
    there = safe or pickled
    if not there:
        raise BootdiffError(f"{folder} has no weights; expected .safetensors of a {kind} there.")
    listed = ", ".join(file.name for file in there[:4])
    chosen = [file for file in there if f".{variant}." in file.name or f".{variant}-" in file.name]
    if variant is not None and not chosen and strict:
        raise BootdiffError(f"{folder} has no weights of variant '{variant}', only {listed}.")
    plain = [file for file in there if file.name.count(".") == 1]
    if not plain and not (variant and chosen):
        raise BootdiffError(f"{folder} holds only variants of the weights ({listed}); name one with --variant.")
    files = tuple(chosen if variant is not None and chosen else plain)
    return Stored(folder, files, variant if chosen else None, _together(files))


def _together(files: Sequence[Path]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors in all files by name; no name may stand in two shards of one network."""
    shapes: dict[str, tuple[int, ...]] = {}
    holders: dict[tuple[str, str], Path] = {}
    for file in files:
        for name, shape in stored_shapes(file).items():
            other = holders.setdefault((SHARD.sub("", file.name), name), file)
            if other is not file:
                raise BootdiffError(
                    f"{file.parent} holds '{name:.80}' in two files, {other.name} and {file.name}; "
                    "nobody knows which is meant, so fetch or save them again."
                )
            shapes[name] = shape
    return shapes


def stored_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a file's tensors, by name.

    Raises:
        BootdiffError: if the file is damaged, or holds quantised weights.
    """
    check_name(file)
    check_regular(file, "file of weights")
    if file.suffix == ".bin":
        return {name: tuple(value.shape) for name, value in _unpickled(file).items()}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            heads = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118  no mapping
            _check_kinds(file, {name: str(head.get_dtype()) for name, head in heads.items()})
            return {name: tuple(head.get_shape()) for name, head in heads.items()}
    except (OSError, SafetensorError) as error:
        raise BootdiffError(
            f"{file} cannot be read, it is damaged ({first_line(error)}); fetch or save it again."
        ) from error


def _check_kinds(file: Path, kinds: Mapping[str, str]) -> None:
    """Refuse integers where weights are expected: they are quantised, and their scales are another library's matter."""
    whole = next((name for name, kind in kinds.items() if kind in QUANTISED and "position_ids" not in name), None)
    if whole is not None:
        raise BootdiffError(
            f"{file} holds '{whole:.80}' as integers ({kinds[whole]}): quantised weights are not read; expected "
            "float32, float16 or bfloat16."
        )
    if any(kind.startswith("F8") for kind in kinds.values()):
        note(f"{file} holds weights of 8 bits; they are read as they are, and are less exact than those of 16.")


def _unpickled(file: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a ``.bin`` file by name, mapped where its format allows it; no code of the file is run."""
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=_zipped(file))
    except Exception as error:  # damaged, or a pickle that asks for more than tensors
        let_pass(error)
        raise BootdiffError(
            f"{file} cannot be read as weights ({first_line(error)}); fetch or save it again."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise BootdiffError(
            f"{file} should hold named tensors and nothing else; save the network's state_dict() there."
        )
    return {str(name): value for name, value in state.items()}


def _zipped(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(2) == b"PK"
