"""Reading and writing files so that nothing is half-written and nothing loaded can execute code."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bootdiff.errors import BootdiffError

if TYPE_CHECKING:
    from torch import Tensor

#: the names that ``write_whole`` gives to what is not whole yet, or no longer needed
_LEFTOVER = re.compile(r"\..+\.\d+\.(tmp(\..+)?|old)")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        BootdiffError: if the file is missing or holds no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BootdiffError(f"expected a file {path}, found none.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BootdiffError(f"{path} cannot be read as JSON ({error}).") from error
    if not isinstance(value, dict):
        raise BootdiffError(f"{path} should hold a JSON object, found a {type(value).__name__}.")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object, aside and renamed."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def save_tensors(path: Path, values: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors; copies, because the format refuses shared memory."""
    from safetensors.torch import save_file

    save_file({name: value.detach().cpu().contiguous().clone() for name, value in values.items()}, path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors.

    Raises:
        BootdiffError: if the file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise BootdiffError(f"{path} cannot be read as safetensors ({error}); remove it or restore it.") from error


def load_state(path: Path) -> Mapping[str, Tensor]:
    """A network's named weights, from ``.safetensors`` or from what ``torch.save`` wrote; no code of the file is run.

    Raises:
        BootdiffError: if the file is missing, damaged, or holds something else.
    """
    import torch

    if not path.is_file():
        raise BootdiffError(f"no file of weights at {path}; expected .safetensors or .pth.")
    if path.suffix == ".safetensors":
        return load_tensors(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged, or a pickle that asks for more than tensors
        raise BootdiffError(f"{path} cannot be read as weights ({str(error).splitlines()[0][:120]}).") from error
    if not isinstance(state, dict) or not all(
        isinstance(value, torch.Tensor) and isinstance(name, str) for name, value in state.items()
    ):
        raise BootdiffError(f"{path} should hold named weights, found a {type(state).__name__}.")
    return state


def file_hash(path: Path) -> str:
    """A short hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:8]


def write_text(path: Path, text: str) -> None:
    """Write a text file aside and rename it into place, so that readers see the old one or the new one, whole."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` with a temporary path beside ``path``, then rename the file or folder it made into place.

    Raises:
        BootdiffError: if the disk refuses; what stood at ``path`` is untouched and the temporary is removed.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(temporary)
        write(temporary)
        if path.is_dir() and not temporary.is_dir():
            raise BootdiffError(f"{path} is a folder; expected a file to write, so choose another name.")
        if path.is_dir():
            _swap(temporary, path)
        else:
            os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):  # where it could not even be looked for
            remove(temporary)
        # safetensors reports a full disk as its own exception, not as an OSError.
        file = next((parent for parent in path.parents if parent.is_file()), None)
        if isinstance(error, NotADirectoryError | FileExistsError) and file is not None:
            raise BootdiffError(f"{path} cannot be written: {file} is a file; choose another place.") from error
        if isinstance(error, OSError) or type(error).__name__ == "SafetensorError":
            raise BootdiffError(f"{path} cannot be written ({error}); what was there before is unchanged.") from error
        raise


def _swap(temporary: Path, path: Path) -> None:
    """Put one folder in another's place; the old one comes back if that fails."""
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    remove(old)
    os.replace(path, old)
    try:
        os.replace(temporary, path)
    except OSError:
        os.replace(old, path)
        raise
    remove(old)


def remove_leftovers(folder: Path) -> None:
    """Remove what a kill within ``write_whole`` left in a folder, and nothing else."""
    for path in folder.glob(".*"):
        if _LEFTOVER.fullmatch(path.name):
            remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
