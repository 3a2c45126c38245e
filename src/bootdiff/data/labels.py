"""What a data set says of its images: class labels, or captions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bootdiff.data.images import digit_labels, find_data, load_digits, parquet_columns, read_idx
from bootdiff.data.prompts import text_lines
from bootdiff.errors import BootdiffError

#: columns of parquet files, and keys of metadata.jsonl
LABELS = ("label", "labels", "class", "fine_label")
CAPTIONS = ("caption", "captions", "text", "prompt")

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Captions:
    """Captions of n images, of which each may have several.

    Args:
        texts: the distinct ones.
        rows: (n, k) in int64: which of them describe image i.
    """

    texts: tuple[str, ...]
    rows: Tensor

    @classmethod
    def of(cls, captions: Sequence[Sequence[str]]) -> Captions:
        """From a list of as many captions for every image."""
        numbers: dict[str, int] = {}
        rows = [[numbers.setdefault(text, len(numbers)) for text in own] for own in captions]
        return cls(tuple(numbers), torch.tensor(rows))


def load_labels(data: str) -> Tensor:
    """The class of every image that ``load_images`` reads, (n,) in int64 from 0.

    They come from the folder that an image lies in, a parquet column, or the labels file beside an IDX file.

    Raises:
        BootdiffError: if there are none.
    """
    kind, files = find_data(data)
    if kind == "digits":
        return digit_labels()
    if kind == "images":
        return _folder_labels(data, files)
    parts = [_parquet_labels(file) if file.suffix == ".parquet" else _idx_labels(file) for file in files]
    labels = torch.cat(parts)
    if int(labels.min()) < 0:
        raise BootdiffError(f"{data} has the label {int(labels.min())}; expected labels from 0.")
    return labels


def load_captions(data: str) -> Captions:
    """Captions of every image that ``load_images`` reads.

    They come from a parquet column, or a folder's ``metadata.jsonl`` (file_name, text); the digits have our own.

    Raises:
        BootdiffError: if there are none.
    """
    kind, files = find_data(data)
    if kind == "digits":
        return Captions.of([digit_captions(*one) for one in zip(*_strokes(), strict=True)])
    if kind == "images":
        return Captions.of([[text] for text in _folder_captions(Path(data), files)])
    texts: list[str] = []
    for file in files:
        if file.suffix != ".parquet":
            raise BootdiffError(f"{file} has no captions; expected parquet, or a folder with a metadata.jsonl.")
        texts += [_text(value, str(file)) for value in _column(file, CAPTIONS, "captions")]
    return Captions.of([[text] for text in texts])


def digit_captions(label: int, weight: str) -> list[str]:
    """What may be said of a digit: ``"seven"``, ``"a bold 7"``, ``"a handwritten seven"``, …

    Args:
        weight: of its strokes, ``"bold"``, ``"thin"`` or, for neither, nothing.
    """
    names = (NUMBERS[label], str(label))
    plain = [form.format(name) for name in names for form in ("{}", "a {}", "a handwritten {}")]
    if not weight:
        return plain * 2
    return plain + [
        f"a {form}{name}" for name in names for form in (f"{weight} ", f"{weight} handwritten ", f"{weight} ")
    ]


def _strokes() -> tuple[list[int], list[str]]:
    """(labels, weights): of each class the third with the most ink is bold, the third with the least thin."""
    labels, ink = digit_labels(), load_digits().float().mean((1, 2, 3))
    weights = [""] * len(labels)
    for label in range(len(NUMBERS)):
        rows = (labels == label).nonzero()[:, 0]
        low, high = ink[rows].quantile(1 / 3), ink[rows].quantile(2 / 3)
        for row in rows.tolist():
            weights[row] = "bold" if ink[row] > high else "thin" if ink[row] < low else ""
    return labels.tolist(), weights


def _folder_labels(data: str, files: Sequence[Path]) -> Tensor:
    root = Path(data)
    names = [file.relative_to(root).parts[0] if file.parent != root else "" for file in files]
    known = sorted(set(names))
    if "" in known or len(known) < 2:
        stray = next((file for file, name in zip(files, names, strict=True) if not name), None)
        found = f"{stray.name} lies in none" if stray is not None else f"there is only {known[0]}"
        raise BootdiffError(f"{data} has no labels: expected a folder for the images of every class, but {found}.")
    return torch.tensor([known.index(name) for name in names])


def _folder_captions(root: Path, files: Sequence[Path]) -> list[str]:
    path = root / "metadata.jsonl"
    if not path.is_file():
        raise BootdiffError(
            f'{root} has no captions; expected a metadata.jsonl of lines {{"file_name": …, "text": …}}.'
        )
    said: dict[str, str] = {}
    for number, line in enumerate(text_lines(path), 1):
        try:
            words = json.loads(line) if line.strip() else {}
            if words:
                key = next(name for name in CAPTIONS if name in words)
                said[words["file_name"]] = _text(words[key], f"{path} line {number}")
        except (ValueError, KeyError, TypeError, StopIteration):
            raise BootdiffError(f"{path} line {number}: expected file_name and text, got {line!r:.80}.") from None
    names = [file.relative_to(root).as_posix() for file in files]
    gone = sorted(set(said) - set(names))
    if gone:
        raise BootdiffError(f"{path} describes {gone[0]}, which is not there ({len(gone)} such lines); remove them.")
    missing = [name for name in names if name not in said]
    if missing:
        raise BootdiffError(f"{path} says nothing of {missing[0]} ({len(missing)} images have no caption).")
    return [said[name] for name in names]


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise BootdiffError(f"{place}: a caption should be text, got {value!r:.80}.")
    return value


def _parquet_labels(path: Path) -> Tensor:
    values = _column(path, LABELS, "labels")
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        raise BootdiffError(f"{path}: labels should be whole numbers, got {type(values[0]).__name__}.")
    return torch.tensor(values)


def _column(path: Path, names: Sequence[str], what: str) -> list[Any]:
    table = parquet_columns(path)
    found = next((name for name in names if name in table.column_names), None)
    if found is None:
        raise BootdiffError(f"{path} has no column of {what}; expected {' or '.join(names)}, got {table.column_names}.")
    values = table.column(found).to_pylist()
    if any(value is None for value in values):
        raise BootdiffError(f"{path}: the column {found} has empty cells; every image needs one of its {what}.")
    return values


def _idx_labels(images: Path) -> Tensor:
    """The file that MNIST's layout puts beside the images: ``…-labels-idx1-ubyte``."""
    path = images.with_name(images.name.replace("images", "labels").replace("idx3", "idx1"))
    if path == images or not path.is_file():
        raise BootdiffError(f"no labels beside {images}; expected a file called as it, with 'labels' and 'idx1'.")
    values = read_idx(path)
    if values.ndim != 1:
        raise BootdiffError(f"{path} is no IDX file of labels: expected uint8 values of shape (n,).")
    return torch.from_numpy(values).long()
