"""The components of a diffusers pipeline, loaded when they are asked for and dropped when nobody needs them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bootdiff.core.errors import BootdiffError, first_line, shown
from bootdiff.storage.files import read_json
from bootdiff.system.out_of_memory import let_pass
from bootdiff.system.quiet import quietly
from bootdiff.teachers.loading.components import Components, assembled, plain
from bootdiff.teachers.loading.index import component_class, read_index
from bootdiff.teachers.loading.safety import check_files
from bootdiff.teachers.loading.scheduler import as_stock_reads
from bootdiff.teachers.loading.shell import shell
from bootdiff.teachers.loading.stored import stored
from bootdiff.teachers.loading.weights import aligned, load_network

#: the classes that stock diffusers builds where an old index says another name
REMAPPED = {"Transformer2DModel": "DiTTransformer2DModel"}
#: the file with the null class and the classes' names, for which diffusers' configs have no place
LABELS = "labels.json"
#: the files of which one holds a tokenizer's words
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model")


class Parts(Components):
    """The components of a pipeline in a folder.

    Args:
        folder: the folder, which holds ``model_index.json``.
        variant: the variant of the weight files, such as ``"fp16"``.
        dtype: the precision of every component.
        size: the side of the images in pixels, where it is another than the pipeline's default; else None.
        index: what a ``model_index.json`` would say, for a folder without one.
    """

    def __init__(
        self,
        folder: Path,
        variant: str | None = None,
        dtype: torch.dtype = torch.float32,
        size: int | None = None,
        index: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.variant, self.dtype, self.size = folder, variant, dtype, size
        self.index = read_index(folder) if index is None else dict(index)
        self._loaded: dict[str, Any] = {}

    def where(self, part: str) -> Path:
        """Return the folder of a component.

        In the hub's oldest pipelines the network and the scheduler lie in the pipeline's own folder.
        """
        inside = self.folder / part
        return inside if inside.is_dir() or part not in ("unet", "scheduler") else self.folder

    @property
    def null_class(self) -> int | None:
        """The label that stood for no class, where ``train-teacher`` wrote it down; else None."""
        path = self.folder / LABELS
        value = read_json(path).get("null_class") if path.is_file() else None
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise BootdiffError(f"{path}: null_class should be a label, got {shown(value)}.")
        return value

    @property
    def class_names(self) -> list[str]:
        """The names of the classes by their labels, where ``train-teacher`` wrote them down; else an empty list."""
        path = self.folder / LABELS
        value = read_json(path).get("names", []) if path.is_file() else []
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise BootdiffError(f"{path}: names should be a list of the classes' names, got {shown(value)}.")
        return value

    def config(self, part: str) -> dict[str, Any]:
        """Return the content of a component's ``config.json``."""
        return read_json(self.where(part) / "config.json")

    def full_config(self, part: str) -> dict[str, Any]:
        """Return a network's config with all that its class adds by itself, as stock pipelines read it."""
        where, kind = self.where(part), self._class(part)
        check_files(where)
        return plain(shell(kind, where, stored(where, self.variant, kind.__name__, strict=False)).config)

    @property
    def scheduler(self) -> dict[str, Any]:
        """The scheduler's config as stock diffusers reads it, with the class that the index names, which it builds."""
        where = self.where("scheduler")
        return as_stock_reads(read_json(where / "scheduler_config.json"), self.kind("scheduler"), where)

    def digest(self, network_part: str) -> str:
        """Return an empty text, because the files in the components' folders identify them."""
        return ""

    def network(self, part: str, kind: type[Any]) -> nn.Module:
        """Return the denoising network, complete and finite.

        Raises:
            BootdiffError: if its weights cannot be read, or the index names another class.
        """
        named = self.kind(part)
        if REMAPPED.get(named or "", named) not in (None, kind.__name__):
            raise BootdiffError(
                f"{self.folder / 'model_index.json'}: {part} is a {named}; expected a {kind.__name__} in a "
                f"{self.pipeline_class}."
            )
        return aligned(load_network(kind, self.where(part), self.dtype, self.variant))

    def check(self, *parts: str) -> None:
        """Refuse a pipeline that lacks one of these components.

        Raises:
            BootdiffError: if one is missing or its folder lacks its files; the message names it.
        """
        for part in parts:
            kind, where = self.kind(part), self.where(part)
            if kind is None or not where.is_dir():
                raise BootdiffError(
                    f"{self.folder} has no {part}, which every {self.pipeline_class} needs; expected a folder "
                    f"{self.folder / part} named in its model_index.json."
                )
            if has_weights(kind):
                stored(where, self.variant, kind, strict=False)
            elif "Tokenizer" in kind and not any(any(where.glob(name)) for name in VOCABULARIES):
                # transformers would make one that knows no word, and say nothing.
                raise BootdiffError(f"{where} has no vocabulary; expected {', '.join(VOCABULARIES)} of a {kind}.")
            if not any(where.iterdir()):
                raise BootdiffError(f"{where} is empty; expected the files of a {kind}.")

    def try_out(self, *parts: str) -> None:
        """Read components and forget them again, so that what is wrong with one is found before any training.

        Raises:
            BootdiffError: if a component cannot be read, is incomplete, or holds values that are not finite.
        """
        for part in parts:
            self.check(part)
            read = self._read(part)
            if part.startswith("tokenizer"):
                self._check_words(read, part)

    def _check_words(self, tokenizer: Any, part: str) -> None:
        """Refuse a tokenizer with more words, or a longer window, than its encoder has room for.

        It would fail at the first prompt.
        """
        encoder = part.replace("tokenizer", "text_encoder")
        words = self.config(encoder) if self.kind(encoder) is not None else {}
        pairs = (
            ("model_max_length", tokenizer.model_max_length, "max_position_embeddings"),
            ("words", len(tokenizer), "vocab_size"),
        )
        for name, has, field in pairs:
            room = words.get(field)
            if not isinstance(has, int | float):
                raise BootdiffError(f"{self.where(part)}: {name} is {shown(has)}; expected a number.")
            if isinstance(room, int) and has > room:
                raise BootdiffError(
                    f"{self.where(part)} has {name} {has:.6g}, and the {field} of its {encoder} is {room}; both must "
                    "belong together."
                )

    def load(self, part: str) -> Any:
        """Return a component, which is kept until ``release``.

        Raises:
            BootdiffError: if the component is missing, of a library that is not known, or cannot be read.
        """
        if part not in self._loaded:
            self.check(part)
            self._loaded[part] = self._read(part)
        return self._loaded[part]

    def release(self, *parts: str) -> None:
        """Forget components, so that their memory can be used again; all of them where none is named."""
        for part in parts or tuple(self._loaded):
            self._loaded.pop(part, None)

    def pipeline(self, dtype: torch.dtype | None = None, **replaced: Any) -> Any:
        """Return the stock pipeline, with ``replaced`` in place of its own components; None leaves one out.

        Args:
            dtype: another precision than the teacher's.

        Raises:
            BootdiffError: if one of its other components cannot be read.
        """
        import diffusers

        for part in self.components:
            if part not in replaced:
                self.check(part)
                replaced[part] = self._read(part, dtype)
        words = {key: value for key, value in self.index.items() if key not in self.components}
        # Stock diffusers wants to be told even of components that the pipeline was saved without.
        absent = {part: None for part, entry in self.index.items() if entry == [None, None]}
        try:
            with quietly():
                return assembled(getattr(diffusers, self.pipeline_class), {**words, **absent, **replaced})
        except Exception as error:  # whatever a class does with components that do not fit each other
            let_pass(error)
            raise BootdiffError(f"the pipeline in {self.folder} cannot be loaded ({first_line(error)}).") from error

    def _class(self, part: str) -> type[Any]:
        return component_class(self.folder, part, *self.index[part])

    def _read(self, part: str, dtype: torch.dtype | None = None) -> Any:
        """Return a component of the index's class, checked, from files that run no code."""
        where, kind = self.where(part), self._class(part)
        if issubclass(kind, nn.Module):
            network = load_network(kind, where, dtype or self.dtype, self.variant, strict=False)
            return network.requires_grad_(False).eval()
        check_files(where)
        try:
            with quietly():
                if part == "scheduler":
                    return kind.from_config(self.scheduler)  # type: ignore[attr-defined]  # every scheduler has it
                return kind.from_pretrained(where, local_files_only=True)  # type: ignore[attr-defined]
        except Exception as error:  # both libraries raise many kinds; each means a part that is damaged
            let_pass(error)
            raise BootdiffError(
                f"the {part} in {where} cannot be read ({first_line(error)}); fetch it again."
            ) from error


def has_weights(kind: str) -> bool:
    """Return whether a component of the class with this name is a network."""
    return not any(word in kind for word in ("Tokenizer", "Scheduler", "Processor", "Extractor", "Watermarker"))
