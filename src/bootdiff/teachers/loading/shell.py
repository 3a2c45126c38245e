"""Building a network from its config without memory for its weights, and never larger than the weights beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import inf, prod
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from bootdiff.core.errors import BootdiffError, first_line
from bootdiff.storage.files import read_json
from bootdiff.system.quiet import quietly
from bootdiff.teachers.loading.stored import Stored

#: how many times as many weights as are stored a class may make: tied weights are made twice and stored once
TIED = 2
#: the most numbers in tables that are computed and not stored
COMPUTED = 2**28
#: the most entries of a list in a config: a longer one describes nothing that a network is made of
LONGEST = 10_000


class _TooLarge(Exception):
    pass


def shell(kind: type[Any], folder: Path, held: Stored | None = None, most: int | None = None) -> Any:
    """Return a network of diffusers or transformers, made from its config on torch's ``meta`` device.

    Args:
        held: the weights beside the config; building stops if it asks for more than they hold.
        most: where no weights are beside it, the most numbers that its tensors may have together.

    Raises:
        BootdiffError: if the config is missing or says something impossible.
    """
    path = folder / "config.json"
    if not path.is_file():  # transformers would take its class's defaults
        raise BootdiffError(f"{folder} has no config.json; expected that of a {kind.__name__}.")
    tensors, numbers = (len(held.shapes), held.numbers) if held is not None else (LONGEST, inf)
    numbers = numbers if most is None else min(numbers, most)
    try:
        _check_sizes(read_json(path), tensors)
        with quietly(), _bounded(tensors, numbers), torch.device("meta"):
            if hasattr(kind, "load_config"):  # diffusers
                made = kind.from_config(kind.load_config(folder, local_files_only=True))
            else:
                made = kind(kind.config_class.from_pretrained(folder, local_files_only=True))
        # Nothing is stored that tied weights or computed tables could be told by, so there is no room for them.
        if most is not None and sum(tensor.numel() for tensor in (*made.parameters(), *made.buffers())) > most:
            raise _TooLarge
        return made
    except BootdiffError:
        raise
    except _TooLarge:
        if most is not None:
            raise BootdiffError(
                f"{path} asks for a {kind.__name__} of more than {most:,} weights, the most that a student of this "
                "teacher may have; take a smaller one."
            ) from None
        raise BootdiffError(
            f"{path} asks for a larger {kind.__name__} than the {tensors} tensors beside it; weights and config.json "
            "must belong together."
        ) from None
    except Exception as error:  # whatever a class does with a value that it does not expect
        raise BootdiffError(f"{path} makes no {kind.__name__} ({first_line(error)}); check its values.") from error


def _check_sizes(words: Mapping[str, Any], tensors: int) -> None:
    """Refuse a config with more layers than there are tensors.

    Some classes make lists as long as the number of their layers before they make any layer.
    """
    for key, value in words.items():
        values = value if isinstance(value, list) else [value]
        if len(values) > LONGEST:
            raise _TooLarge
        counts = [entry for entry in values if isinstance(entry, int) and not isinstance(entry, bool)]
        if any(word in key for word in ("layers", "blocks", "depth")) and any(count > tensors for count in counts):
            raise _TooLarge
        if isinstance(value, dict):
            _check_sizes(value, tensors)


@contextmanager
def _bounded(tensors: int, numbers: float) -> Iterator[None]:
    """Stop the ``with`` block as soon as modules have more tensors, or larger ones, than can have been stored."""
    count, total = 0, 0

    def watch(most: float, kept: bool, value: Any) -> None:
        nonlocal count, total
        if isinstance(value, torch.Tensor):
            count, total = count + kept, total + prod(value.shape)
            if count > TIED * tensors + 8 or total > most:
                raise _TooLarge

    def parameter(module: nn.Module, name: str, value: Any) -> None:
        watch(TIED * numbers + COMPUTED, True, value)

    def buffer(module: nn.Module, name: str, value: Any) -> None:
        watch(TIED * numbers + COMPUTED, False, value)

    hooks = [
        register_module_parameter_registration_hook(parameter),
        register_module_buffer_registration_hook(buffer),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
