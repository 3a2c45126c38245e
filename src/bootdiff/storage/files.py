"""Reading and writing files so that nothing is half-written and nothing loaded can execute code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bootdiff.core.errors import BootdiffError, first_line
from bootdiff.storage.reading import MOST_JSON, check_name, check_regular, parse_json, read_text
from bootdiff.storage.whole import has_leftovers as has_leftovers
from bootdiff.storage.whole import remove as remove
from bootdiff.storage.whole import remove_leftovers as remove_leftovers
from bootdiff.storage.whole import writable as writable
from bootdiff.storage.whole import write_parts as write_parts
from bootdiff.storage.whole import write_whole as write_whole
from bootdiff.system.out_of_memory import let_pass

if TYPE_CHECKING:
    from torch import Tensor


def read_json(path: Path, most: int = MOST_JSON, cure: str = "") -> dict[str, Any]:
    """Read a file that holds a JSON object; ``reading.parse_json`` says what is refused.

    Args:
        most: the most bytes that the file may have.
        cure: what to do with a damaged file, at the message's end.

    Raises:
        BootdiffError: if the file is missing, too large, or holds no JSON object.
    """
    end = f"; {cure}." if cure else "."
    try:
        value = parse_json(read_text(path, most, "JSON file"))
    except (OSError, ValueError) as error:
        raise BootdiffError(f"{path} cannot be read as JSON ({first_line(error)}){end}") from error
    if not isinstance(value, dict):
        raise BootdiffError(f"{path} should hold a JSON object, found a {type(value).__name__}{end}")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object to a file, which is made aside and renamed into place."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def save_tensors(path: Path, values: Mapping[str, Tensor], words: Mapping[str, str] | None = None) -> None:
    """Write tensors to a safetensors file; they are copied, because the format refuses shared memory.

    Args:
        words: what the file's header says beside the tensors.
    """
    from safetensors.torch import save_file

    own = {name: value.detach().cpu().contiguous().clone() for name, value in values.items()}
    save_file(own, path, None if words is None else dict(words))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, by name.

    Raises:
        BootdiffError: if the file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_name(path)
    check_regular(path, "file of tensors")
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise BootdiffError(
            f"{path} cannot be read as safetensors ({first_line(error)}); remove it or restore it."
        ) from error


def load_state(path: Path) -> Mapping[str, Tensor]:
    """Read a network's named weights from a ``.safetensors`` file or one that ``torch.save`` wrote; no code is run.

    Raises:
        BootdiffError: if the file is missing, damaged, or holds something else.
    """
    import torch

    check_regular(path, "file of weights")
    if path.suffix == ".safetensors":
        return load_tensors(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged, or a pickle that asks for more than tensors
        let_pass(error)
        raise BootdiffError(
            f"{path} cannot be read as weights ({first_line(error)}); fetch or save it again."
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(value, torch.Tensor) and isinstance(name, str) for name, value in state.items()
    ):
        raise BootdiffError(
            f"{path} should hold named weights, found a {type(state).__name__}; save the network's state_dict() there."
        )
    return state


def append_line(path: Path, values: Mapping[str, Any]) -> None:
    """Append one line of JSON to a log file.

    Raises:
        BootdiffError: if the file cannot be written.
    """
    with writable(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")


def file_hash(path: Path) -> str:
    """Return the first eight hexadecimal digits of the SHA-256 hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:8]


def write_text(path: Path, text: str) -> None:
    """Write a text file aside and rename it into place, so that readers see the old one or the new one, whole.

    Python holds the bytes of a name that is not UTF-8 as half characters. They are written as JSON and YAML escape
    them, and so come back from there as they were.
    """
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8", errors="backslashreplace"))
