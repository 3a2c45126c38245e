"""What a data set says of its images: their class labels, or captions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bootdiff.core.errors import BootdiffError, shown
from bootdiff.data.idx import read_idx
from bootdiff.data.images import digit_labels, find_data, load_digits
from bootdiff.data.parquet import class_names, column_names, read_column
from bootdiff.data.prompts import check_words
from bootdiff.data.text_lines import text_lines
from bootdiff.storage.reading import parse_json

#: the columns of parquet files, and keys of metadata.jsonl, that hold labels and captions
LABELS = ("label", "labels", "class", "fine_label")
CAPTIONS = ("caption", "captions", "text", "prompt")

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Captions:
    """Captions of n images, of which each may have several.

    Args:
        texts: the distinct captions.
        rows: for every image the numbers of its captions within ``texts``, (n, k) in int64.
    """

    texts: tuple[str, ...]
    rows: Tensor

    @classmethod
    def of(cls, captions: Sequence[Sequence[str]]) -> Captions:
        """Return the captions of images from a list for each image; all these lists have the same length."""
        numbers: dict[str, int] = {}
        rows = [[numbers.setdefault(text, len(numbers)) for text in own] for own in captions]
        return cls(tuple(numbers), torch.tensor(rows))


def load_labels(data: str) -> Tensor:
    """Return the class of every image that ``load_images`` reads, (n,) in int64, counted from 0.

    A label comes from the folder in which an image lies, a parquet column, or the labels file beside an IDX file.

    Raises:
        BootdiffError: if the data set has no labels, or they cannot be read.
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


def load_class_names(data: str) -> tuple[str, ...]:
    """Return the names of the classes in the order of their labels; empty where the data set names none.

    The names are those of folders, or those in the schema of a parquet file.
    """
    kind, files = find_data(data)
    if kind == "images":
        return tuple(_folder_classes(data, files)[0])
    return class_names(files[0], LABELS) if files and files[0].suffix == ".parquet" else ()


def natural(name: str) -> tuple[object, ...]:
    """Return a key by which names are ordered as people count: 2 before 10."""
    parts = re.split(r"([0-9]+)", name)
    return (tuple(int(part) if place % 2 else part for place, part in enumerate(parts)), name)


def load_captions(data: str) -> Captions:
    """Return the captions of every image that ``load_images`` reads.

    A caption comes from a parquet column or from a folder's ``metadata.jsonl`` (file_name, text). Those of the digits
    are made by ``digit_captions``.

    Raises:
        BootdiffError: if the data set has no captions, or they cannot be read.
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
    """Return captions that fit a digit, such as ``"seven"``, ``"a bold 7"`` or ``"a handwritten seven"``.

    Args:
        weight: the weight of its strokes, ``"bold"`` or ``"thin"``, or an empty string for neither.
    """
    names = (NUMBERS[label], str(label))
    plain = [form.format(name) for name in names for form in ("{}", "a {}", "a handwritten {}")]
    if not weight:
        return plain * 2
    return plain + [
        f"a {form}{name}" for name in names for form in (f"{weight} ", f"{weight} handwritten ", f"{weight} ")
    ]


def _strokes() -> tuple[list[int], list[str]]:
    """Return the digits' labels, and the weights of their strokes: ``"bold"``, ``"thin"`` or empty.

    Of each class the third with the most ink is bold, and the third with the least ink is thin.
    """
    labels, ink = digit_labels(), load_digits().float().mean((1, 2, 3))
    weights = [""] * len(labels)
    for label in range(len(NUMBERS)):
        rows = (labels == label).nonzero()[:, 0]
        low, high = ink[rows].quantile(1 / 3), ink[rows].quantile(2 / 3)
        for row in rows.tolist():
            weights[row] = "bold" if ink[row] > high else "thin" if ink[row] < low else ""
    return labels.tolist(), weights


def _folder_labels(data: str, files: Sequence[Path]) -> Tensor:
    known, names = _folder_classes(data, files)
    number = {name: label for label, name in enumerate(known)}
    return torch.tensor([number[name] for name in names])


def _folder_classes(data: str, files: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Return the folders of the classes in natural order, and the folder of every image."""
    root = Path(data)
    names = [file.relative_to(root).parts[0] if file.parent != root else "" for file in files]
    known = sorted(set(names), key=natural)
    if "" in known or len(known) < 2:
        stray = next((file for file, name in zip(files, names, strict=True) if not name), None)
        found = f"{stray.name} lies in none" if stray is not None else f"there is only {known[0]}"
        raise BootdiffError(f"{data} has no labels: expected a folder for the images of every class, but {found}.")
    return known, names


def _folder_captions(root: Path, files: Sequence[Path]) -> list[str]:
    path = root / "metadata.jsonl"
    if not path.is_file():
        raise BootdiffError(
            f'{root} has no captions; expected a metadata.jsonl of lines {{"file_name": …, "text": …}}.'
        )
    said: dict[str, str] = {}
    for number, line in enumerate(text_lines(path), 1):
        if line.strip():
            name, text = _described(line, f"{path} line {number}")
            if said.setdefault(name, text) != text:
                raise BootdiffError(f"{path} line {number} gives {shown(name)} a second caption; keep one of them.")
    names = [file.relative_to(root).as_posix() for file in files]
    gone = sorted(set(said) - set(names))
    if gone:
        raise BootdiffError(f"{path} describes {gone[0]}, which is not there ({len(gone)} such lines); remove them.")
    missing = [name for name in names if name not in said]
    if missing:
        raise BootdiffError(f"{path} says nothing of {missing[0]} ({len(missing)} images have no caption).")
    return [said[name] for name in names]


def _described(line: str, place: str) -> tuple[str, str]:
    """Return (file name, caption) from a line of metadata.jsonl."""
    try:
        words = parse_json(line, nan=True)
    except ValueError as error:
        raise BootdiffError(f"{place} is not JSON ({error}); mend or remove it.") from None
    if not isinstance(words, dict):
        raise BootdiffError(f"{place}: expected an object with file_name and text, got {shown(words)}.")
    name, column = words.get("file_name"), next((column for column in CAPTIONS if column in words), None)
    if not isinstance(name, str):
        raise BootdiffError(f"{place} lacks file_name, the image's name as text; it has {shown(list(words))}.")
    if column is None:
        raise BootdiffError(f"{place} lacks a caption: expected {' or '.join(CAPTIONS)}, got {shown(list(words))}.")
    return name, _text(words[column], place)


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise BootdiffError(f"{place}: a caption should be text, got {shown(value)}.")
    check_words(value, place)
    return value


def _parquet_labels(path: Path) -> Tensor:
    values = _column(path, LABELS, "labels")
    for row, value in enumerate(values):
        if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
            raise BootdiffError(f"{path} row {row}: labels should be whole numbers, got {shown(value)}.")
    return torch.tensor(values, dtype=torch.int64)


def _column(path: Path, names: Sequence[str], what: str) -> list[Any]:
    known = column_names(path)
    found = next((name for name in names if name in known), None)
    if found is None:
        raise BootdiffError(f"{path} has no column of {what}; expected {' or '.join(names)}, got {shown(known, 120)}.")
    values = list(read_column(path, found, _single))
    if any(value is None for value in values):
        raise BootdiffError(f"{path}: the column {found} has empty cells; every image needs one of its {what}.")
    return values


def _single(name: str, kind: Any) -> str | None:
    """Return what is wrong with a column of this arrow type; None where each cell is one value."""
    import pyarrow

    nested = pyarrow.types.is_nested(kind)
    return f"the column {name} holds {shown(str(kind), 60)}; expected one value a cell" if nested else None


def _idx_labels(images: Path) -> Tensor:
    """Return the labels beside IDX images, (n,) in int64.

    They lie in the file that MNIST's layout puts there: ``…-labels-idx1-ubyte``.
    """
    path = images.with_name(images.name.replace("images", "labels").replace("idx3", "idx1"))
    if path == images or not path.is_file():
        raise BootdiffError(f"no labels beside {images}; expected a file called as it, with 'labels' and 'idx1'.")
    values = read_idx(path)
    if values.ndim != 1:
        raise BootdiffError(f"{path} is no IDX file of labels: expected uint8 values of shape (n,).")
    return torch.from_numpy(values).long()
